package notifier

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// api is the public API of r.
func (r *rig) api() http.Handler {
	return stats.New(stats.Config{
		Source: r.counter, Visible: r.Public,
		Pushes: func(_ context.Context, limit int, _ bool) ([]stats.Push, error) { return r.Pushes(limit, false) },
	})
}

// get returns the responses to paths, and how long each takes: the median of many tries, the
// paths in turn, so that other load affects all equally.
func get(h http.Handler, tries int, paths ...string) (answers []string, times []time.Duration) {
	took := make([][]time.Duration, len(paths))
	answers, times = make([]string, len(paths)), make([]time.Duration, len(paths))
	for range tries {
		for i, path := range paths {
			w, q := httptest.NewRecorder(), httptest.NewRequest("GET", stats.Prefix+path, nil)
			begun := time.Now()
			h.ServeHTTP(w, q)
			took[i] = append(took[i], time.Since(begun))
			answers[i] = fmt.Sprint(w.Code, w.Header(), w.Body)
		}
	}
	for i, list := range took {
		slices.Sort(list)
		times[i] = list[len(list)/2]
	}
	return answers, times
}

// alike reports whether times are equal except for noise.
func alike(times []time.Duration) bool {
	return slices.Max(times) < 2*slices.Min(times)+100*time.Microsecond
}

// The responses for a private repository, a public one that does not exist and a private one
// that does not exist are the same and take the same time.
func TestPrivateLikeMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := image("a", 1)
	r.stopSinks()
	for i := range 500 {
		r.push(a.as("secret/app", fmt.Sprint("v", i)))
	}
	r.push(a.as("oss/app", "v1"))
	r.reopen(nil)
	r.drain()
	for _, suffix := range []string{"", "/daily", "/daily?days=400", "?limit=1", "?limit=0"} {
		paths := []string{"repositories/secret/app" + suffix, "repositories/oss/missing" + suffix, "repositories/secret/never" + suffix}
		answers, times := get(r.api(), 200, paths...)
		for try := 0; try < 4 && !alike(times); try++ { // there is other load
			_, times = get(r.api(), 200, paths...)
		}
		if answers[0] != answers[1] || answers[0] != answers[2] || !strings.HasPrefix(answers[0], "40") {
			t.Errorf("%q: private: %s\nmissing: %s\nnever: %s", suffix, answers[0], answers[1], answers[2])
		}
		if !alike(times) {
			t.Errorf("%q takes %s", suffix, times)
		}
	}
}

// The list of public pushes takes no longer if there are private ones in between, counted or
// given up before.
func TestPrivatePushesDoNotDelay(t *testing.T) {
	t.Parallel()
	few, many := newRig(t, nil), newRig(t, nil)
	a := image("a", 1)
	for _, r := range []*rig{few, many} {
		r.push(a.as("oss/app", "v1"))
		r.drain()
	}
	var rows []pushrow.Push
	for seq := uint64(1000); seq < 1000+pushrow.Kept-500; seq++ {
		rows = append(rows, pushrow.Push{Seq: seq, Repository: "secret/app", Digest: a.Digest, Tags: []string{"v1"}})
	}
	batch := &state.Batch{}
	for _, r := range rows {
		if err := pushrow.Put(batch, r.Seq, pushrow.PushPart, &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := many.state.Commit(batch, state.Sync); err != nil {
		t.Fatal(err)
	}
	dropped := make([]event.Event, 3000)
	for i := range dropped {
		dropped[i] = pushEvent("secret/app", fmt.Sprint("sha256:", i), counts.Push)
	}
	if err := many.dead.Dropped(journal.Pushes, sink.Counters, 50_000, 52_999, entriesOf(t, 50_000, dropped...)); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*rig{few, many} { // what is read at a start has the same effect
		r.reopen(nil)
		r.stopSinks()
	}
	var answers []string
	var times []time.Duration
	for range 5 { // there is other load
		answers, times = nil, nil
		for _, r := range []*rig{few, many} {
			answer, took := get(r.api(), 200, "pushes?limit=1")
			id := strings.Index(answer[0], `"repository"`) // after id and time, which differ
			answers, times = append(answers, answer[0][id:]), append(times, took...)
		}
		if alike(times) {
			break
		}
	}
	if answers[0] != answers[1] || !strings.Contains(answers[0], "oss/app") {
		t.Errorf("the answers are\n%s\n%s", answers[0], answers[1])
	}
	if !alike(times) {
		t.Errorf("limit=1 takes %s, and %s with private pushes in between", times[0], times[1])
	}
}
