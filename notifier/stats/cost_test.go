package stats

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// crowded is an API with so many repositories, half of them public; looks counts
// how often it was asked whether one is.
func crowded(n int) (cfg Config, looks *int) {
	list := make([]counts.Totals, n)
	for i := range list {
		folder := []string{"oss", "secret"}[i%2]
		list[i] = counts.Totals{Name: fmt.Sprintf("%s/app%06d", folder, i), Counts: map[counts.Class]int64{counts.Pull: int64(i * 7919 % n)}}
	}
	looks = new(int)
	return Config{Source: &numbersFake{list: list}, Visible: func(name string) bool { *looks++; return strings.HasPrefix(name, "oss/") }}, looks
}

// A page costs the same however many repositories there are, public or not, but
// for the first in a moment.
func TestPagesAreCheap(t *testing.T) {
	t.Parallel()
	cfg, looks := crowded(10_000)
	h := New(cfg)
	ask := func() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", Prefix+"repositories?sort=pulls&limit=10", nil))
		if w.Code != 200 {
			t.Fatal(w.Code)
		}
	}
	ask()
	*looks = 0
	ask()
	if *looks > 10 {
		t.Errorf("the second page looks at %d repositories, want 10", *looks)
	}
}

// busySource is a source that is slow, and notes how many ask at a time.
type busySource struct {
	numbersFake
	now, most atomic.Int64
}

func (b *busySource) Repository(ctx context.Context, name string) (counts.Totals, map[string]map[counts.Class]int64, bool, error) {
	b.work()
	return b.numbersFake.Repository(ctx, name)
}

func (b *busySource) Pushes(context.Context, int, bool) ([]Push, error) {
	b.work()
	return nil, nil
}

func (b *busySource) work() {
	defer b.now.Add(-1)
	if n := b.now.Add(1); n > b.most.Load() {
		b.most.Store(n)
	}
	time.Sleep(time.Second)
}

// Only a few requests read at a time. A client that leaves stops waiting, and no
// error is logged for it.
func TestFewReadAtATime(t *testing.T) {
	for _, path := range []string{"repositories/oss/app", "pushes?limit=1000"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			fewReadAtATime(t, path)
		})
	}
}

func fewReadAtATime(t *testing.T, path string) {
	synctest.Test(t, func(t *testing.T) {
		source := &busySource{numbersFake: numbersFake{list: []counts.Totals{{Name: "oss/app"}}}}
		var log bytes.Buffer
		h := New(Config{Source: source, Visible: func(string) bool { return true }, Pushes: source.Pushes, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ask := func(ctx context.Context, want int) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", Prefix+path, nil))
			if w.Code != want {
				t.Errorf("got %d, want %d", w.Code, want)
			}
		}
		began := time.Now()
		var all sync.WaitGroup
		for range 5 * readers {
			all.Go(func() { ask(t.Context(), 200) })
		}
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		all.Go(func() { ask(gone, 503) })
		synctest.Wait()
		leave()
		all.Wait()
		if most, took := source.most.Load(), time.Since(began); most != readers || took != 5*time.Second {
			t.Errorf("%d read at a time, for %s; want %d and 5 s", most, took, readers)
		}
		if log.Len() > 0 {
			t.Errorf("the log has %s", log.String())
		}
	})
}

func BenchmarkPage(b *testing.B) {
	cfg, _ := crowded(100_000)
	h := New(cfg)
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", Prefix+"repositories?sort=pulls&limit=10", nil))
	}
}
