package remote_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// A push that the hold refused is reported by a retry, once, with the key of the push. A
// retry of a push that was applied nevertheless is confirmed, and not applied again.
func TestRetryLetter(t *testing.T) {
	t.Parallel()
	for name, cfg := range holds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, cfg)
			r.open()
			r.push(image("oss/other", "v1", "b", 1)) // the keys of the hold are known
			r.drain()
			r.hold.Refuse(http.StatusBadRequest, nil, `{"error":"InvalidRequest","message":"no"}`)
			r.push(image("oss/app", "v1", "a", 2))
			r.drain()
			box := deadletters.Box{Sink: "remote", Stream: journal.Pushes}
			letter, err := r.dead.Get(box, 2)
			if err != nil || letter.Event == nil || letter.Attempts != 1 || letter.Repository != "oss/app" {
				t.Fatalf("letter %+v, %v", letter, err)
			}
			retry := func() {
				t.Helper()
				if err := r.RetryLetter(t.Context(), box, 2); err != nil {
					t.Fatal(err)
				}
				r.drain()
			}
			retry() // it is refused again
			if again, err := r.dead.Get(box, 2); err != nil || again.Attempts != 2 || again.Retrying || again.Event == nil {
				t.Fatalf("letter %+v, %v", again, err)
			}
			r.hold.Refuse(0, nil, "")
			retry()
			if err := r.dead.Add(journal.Pushes, "remote", 2, "its answer was lost", letter.Event); err != nil {
				t.Fatal(err)
			}
			retry()
			if all, _, err := r.dead.List("", "", 10); len(all) != 0 || err != nil {
				t.Errorf("letters %+v, %v", all, err)
			}
			r.checkLayers(3)
			if c := r.hold.Counts(owner, "oss/app"); c.Pushes != 1 {
				t.Errorf("the hold has counted %d pushes", c.Pushes)
			}
			for _, p := range r.latest() {
				if p.Repository == "oss/app" && (p.State != "done" || p.Remote == nil) {
					t.Errorf("push %+v", p)
				}
			}
			if r.restart(); len(r.latest()) != 2 {
				t.Errorf("pushes %+v", r.latest())
			}
		})
	}
}

// A paused sink reports neither pushes nor pulls, also after a restart. A skipped push is a
// dead letter, which a retry reports once.
func TestPauseAndSkip(t *testing.T) {
	t.Parallel()
	for name, cfg := range holds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, cfg)
			r.pulls = true
			r.open()
			m := image("oss/app", "v0", "z", 1)
			r.push(m)
			r.drain()
			if err := r.PauseSink(t.Context(), "remote"); err != nil {
				t.Fatal(err)
			}
			r.restart()
			for i := range 3 {
				r.push(image(fmt.Sprint("oss/app", i), "v1", fmt.Sprint(i), 2))
			}
			r.pull(m)
			r.until("the events are recorded", func() bool {
				paused := 0
				for _, h := range r.Health() {
					if h.Sink == "remote" && h.ByOperator && h.Depth > 0 {
						paused++
					}
				}
				return paused == 2
			})
			if got := len(r.inputs()); got != 1 {
				t.Errorf("%d calls while paused", got-1)
			}
			box := deadletters.Box{Sink: "remote", Stream: journal.Pushes}
			if done, err := r.SkipEvents(t.Context(), box, 2); err != nil || done.Events != 1 {
				t.Fatalf("%+v, %v", done, err)
			}
			if err := r.ResumeSink("remote"); err != nil {
				t.Fatal(err)
			}
			r.drain()
			r.checkLayers(5)
			if err := r.RetryLetter(t.Context(), box, 2); err != nil {
				t.Fatal(err)
			}
			r.drain()
			r.restart()
			r.drain()
			r.checkLayers(7)
			for i := range 3 {
				if c := r.hold.Counts(owner, fmt.Sprint("oss/app", i)); c.Pushes != 1 {
					t.Errorf("oss/app%d: %d pushes are counted", i, c.Pushes)
				}
			}
			if all, _, err := r.dead.List("", "", 10); len(all) != 0 || err != nil {
				t.Errorf("letters %+v, %v", all, err)
			}
			r.until("the pull is reported", func() bool { return r.hold.Counts(owner, "oss/app").Pulls == 1 })
		})
	}
}
