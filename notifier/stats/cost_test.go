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

// manyRepositories returns the configuration of an API with n repositories, half of them
// public, and the number of calls of Visible.
func manyRepositories(n int) (cfg Config, calls *int) {
	list := make([]counts.Totals, n)
	for i := range list {
		folder := []string{"oss", "secret"}[i%2]
		list[i] = counts.Totals{Name: fmt.Sprintf("%s/app%06d", folder, i), Counts: map[counts.Class]int64{counts.Pull: int64(i * 7919 % n)}}
	}
	calls = new(int)
	return Config{Source: &fakeSource{list: list}, Visible: func(name string) bool { *calls++; return strings.HasPrefix(name, "oss/") }}, calls
}

// The cost of a page does not depend on the number of repositories, public or private,
// except for the first page until the list is cached.
func TestPageCost(t *testing.T) {
	t.Parallel()
	cfg, calls := manyRepositories(10_000)
	h := New(cfg)
	ask := func() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", Prefix+"repositories?sort=pulls&limit=10", nil))
		if w.Code != 200 {
			t.Fatal(w.Code)
		}
	}
	ask()
	*calls = 0
	ask()
	if *calls > 10 {
		t.Errorf("the second page calls Visible %d times, want at most 10", *calls)
	}
}

// slowSource is a source whose reads take a second. It records the maximum number of
// concurrent reads.
type slowSource struct {
	fakeSource
	now, most atomic.Int64
}

func (b *slowSource) Repository(ctx context.Context, name string) (counts.Totals, map[string]map[counts.Class]int64, bool, error) {
	b.work()
	return b.fakeSource.Repository(ctx, name)
}

func (b *slowSource) Pushes(context.Context, int, bool) ([]Push, error) {
	b.work()
	return nil, nil
}

func (b *slowSource) work() {
	defer b.now.Add(-1)
	if n := b.now.Add(1); n > b.most.Load() {
		b.most.Store(n)
	}
	time.Sleep(time.Second)
}

// The number of concurrent reads is limited. A client that disconnects stops waiting,
// without an error in the log.
func TestConcurrentReads(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"repositories/oss/app", "pushes?limit=1000"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			concurrentReads(t, path)
		})
	}
}

func concurrentReads(t *testing.T, path string) {
	synctest.Test(t, func(t *testing.T) {
		source := &slowSource{fakeSource: fakeSource{list: []counts.Totals{{Name: "oss/app"}}}}
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
		client, disconnect := context.WithCancel(t.Context())
		all.Go(func() { ask(client, 503) })
		synctest.Wait()
		disconnect()
		all.Wait()
		if most, took := source.most.Load(), time.Since(began); most != readers || took != 5*time.Second {
			t.Errorf("%d concurrent reads for %s, want %d for 5 s", most, took, readers)
		}
		if log.Len() > 0 {
			t.Errorf("log %s, want none", log.String())
		}
	})
}

func BenchmarkPage(b *testing.B) {
	cfg, _ := manyRepositories(100_000)
	h := New(cfg)
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", Prefix+"repositories?sort=pulls&limit=10", nil))
	}
}
