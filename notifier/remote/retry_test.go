package remote_test

import (
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
