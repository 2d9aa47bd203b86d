package notifier

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/state"
)

func (n notification) as(visibility string) notification { n.Visibility = visibility; return n }

// publicView is what the public API shows of pushes and repositories, as JSON.
func (r *rig) publicView() string {
	r.t.Helper()
	answers, _ := get(r.api(), 1, "pushes", "repositories")
	return fmt.Sprint(answers)
}

// A private image is counted and nothing else; the next push of the image decides anew.
func TestNotifyPrivate(t *testing.T) {
	t.Parallel()
	const nothing = `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":0,"postCreated":false}`
	for _, visibility := range []string{lexicon.VisibilityPrivate, "unlisted"} {
		for _, stateIs := range []string{"kept", "lost"} {
			t.Run(visibility+", state "+stateIs, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, &announce.Config{})
				p, other := image("a", 2).as("oss/app", "v1"), image("b", 1).as("oss/app", "v2")
				name, hidden := alice+"/oss/app", event.PrivatePrefix+alice+"/oss/app"
				before := r.publicView()
				if got := r.notify(notificationOf(p, alice).as(visibility)); got != nothing {
					t.Errorf("private: %s", got)
				}
				r.notify(notificationOf(p, alice).pulled())
				r.notify(notificationOf(p, alice).pulled().as(lexicon.VisibilityPublic)) // ignored for a pull
				r.wantCounts(name, nil)
				r.wantCounts(hidden, map[counts.Class]int64{counts.Push: 1, counts.Pull: 2})
				if got := r.recordsOf(p.Digest); len(got) != 0 {
					t.Errorf("private: records of %v", got)
				}
				if got := r.publicView(); got != before {
					t.Errorf("private: the API shows %s", got)
				}
				// Another manifest of the repository is not affected.
				r.notify(notificationOf(other, alice))
				with := r.publicView()

				if got := r.notify(notificationOf(p, alice).as(lexicon.VisibilityPublic)); !strings.Contains(got, `"layersCreated":2`) {
					t.Errorf("public: %s", got)
				}
				r.notify(notificationOf(p, alice).pulled().as(visibility))
				r.notify(notificationOf(p, bob))
				r.wantCounts(name, map[counts.Class]int64{counts.Push: 2, counts.Pull: 1})
				if got, want := r.recordsOf(p.Digest), (map[string]int{alice: 2, bob: 2}); !reflect.DeepEqual(got, want) {
					t.Errorf("public: records of %v, want %v", got, want)
				}
				if got := r.publicView(); got == with {
					t.Errorf("public: the API shows %s", got)
				}
				if stateIs == "lost" {
					r.stop()
					if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
						t.Fatal(err)
					}
					r.open(&announce.Config{})
				}
				if got := r.notify(notificationOf(p, alice).as(visibility)); got != nothing {
					t.Errorf("private again: %s", got)
				}
				if got, want := r.recordsOf(p.Digest), (map[string]int{bob: 2}); !reflect.DeepEqual(got, want) {
					t.Errorf("private again: records of %v, want %v", got, want)
				}
				for range 2 {
					pushes, err := r.Pushes(100, false)
					if err != nil {
						t.Fatal(err)
					}
					for _, push := range pushes {
						if push.Digest == p.Digest && push.Repository != bob+"/oss/app" {
							t.Errorf("private again: the API shows %+v", push)
						}
					}
					r.reopen(&announce.Config{})
				}
				r.notify(notificationOf(p, alice))
				if got, want := r.recordsOf(p.Digest), (map[string]int{alice: 2, bob: 2}); !reflect.DeepEqual(got, want) {
					t.Errorf("public again: records of %v, want %v", got, want)
				}
				r.consistent(reconcile.Count)
			})
		}
	}
}

// An image that becomes private is not announced, and records in the outbox are not written.
func TestPrivateWhilePending(t *testing.T) {
	t.Parallel()
	for name, collect := range map[string]time.Duration{"in an open window": 500 * time.Millisecond, "in the outbox": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			announce := &announce.Config{Collect: collect}
			r := newRig(t, announce)
			if collect == 0 {
				r.account.down.Store(true)
			}
			p := image("a", 2).as("oss/app", "v1")
			r.notifyCanceled(notificationOf(p, owner))
			waitForOutbox := func(what string, want bool) {
				if collect > 0 {
					return
				}
				for _, key := range [][]byte{state.AnnounceOutbox, state.RecordsOutbox} {
					r.until(what, func() bool {
						ok, err := delivery.NewOutbox(r.state, key, nil).Load(&json.RawMessage{})
						return ok == want && err == nil
					})
				}
			}
			waitForOutbox("it is in the outbox", true)
			r.notifyCanceled(notificationOf(p, owner).as(lexicon.VisibilityPrivate))
			r.until("it is counted", func() bool { return r.counts(event.PrivatePrefix + "oss/app")[counts.Push] == 1 })
			rev := r.repo.Head().Rev
			waitForOutbox("it is withdrawn", false)
			r.account.down.Store(false)
			r.drain()
			if posts, records := r.posts(), r.records(); len(posts) != 0 || len(records) != 0 {
				t.Errorf("posts %v, records %v", posts, records)
			}
			if got := r.repo.Head().Rev; collect == 0 && got != rev {
				t.Errorf("the revision has changed to %s", got)
			}
			var result pushrow.Announce
			if ok, err := pushrow.Get(r.state, 1, pushrow.AnnouncePart, &result); !ok || err != nil || result.Reason != "private" {
				t.Errorf("result %+v, %v, %v", result, ok, err)
			}
		})
	}
}
