package notifier

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

const carol, carolHandle = "did:web:carol.example.net", "carol.example.com"

// fakeHandles resolves the handles that it is told.
type fakeHandles struct {
	mu      sync.Mutex
	dids    map[string]string
	asked   map[string]int
	changed chan struct{}
}

func newFakeHandles() *fakeHandles {
	return &fakeHandles{dids: map[string]string{}, asked: map[string]int{}, changed: make(chan struct{})}
}

func (h *fakeHandles) Cached(handle string) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[handle]++
	did, known := h.dids[handle]
	return did, known
}

func (h *fakeHandles) Resolve(_ context.Context, handle string) (string, error) {
	if did, known := h.Cached(handle); known {
		return did, nil
	}
	return "", errors.New("no route")
}

func (h *fakeHandles) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// set resolves a handle from now on, "": not any more.
func (h *fakeHandles) set(handle, did string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dids[handle] = did; did == "" {
		delete(h.dids, handle)
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// newOwnedRig is a rig in which oss/ belongs to alice's DID and carol/ to carol's handle.
func newOwnedRig(t *testing.T, cfg *announce.Config) (*rig, *fakeHandles) {
	r := newRig(t, cfg)
	h := newFakeHandles()
	r.handles = h
	r.owners = []owners.Rule{
		{Repositories: []string{"oss/**"}, Owner: owners.Parse(alice)},
		{Repositories: []string{"carol/**"}, Owner: owners.Parse(carolHandle)},
	}
	r.options = "owned"
	r.reopen(cfg)
	return r, h
}

// wantRecords checks how many records each owner has for a manifest.
func (r *rig) wantRecords(p Push, want map[string]int) {
	r.t.Helper()
	if got := r.recordsOf(p.Digest); !reflect.DeepEqual(got, want) {
		r.t.Errorf("%s has records of %v, want %v", p.Repository, got, want)
	}
}

func (r *rig) released() {
	r.t.Helper()
	r.until("no push is parked", func() bool { return r.parked.Len() == 0 })
	r.drain()
}

// An image that is pushed here and belongs to another DID has its records, and is
// otherwise like any other: it is announced under the name of the repository.
func TestOwnerRules(t *testing.T) {
	t.Parallel()
	r, h := newOwnedRig(t, shortWindows())
	h.set(carolHandle, carol)
	a, b, c := image("a", 2).as("oss/app", "v1.0.0"), image("b", 3).as("carol/app", "v1.0.0"), image("c", 1).as("other/app", "v1.0.0")
	for _, p := range []Push{a, b, c} {
		r.push(p)
	}
	r.drain()
	r.wantRecords(a, map[string]int{alice: 2})
	r.wantRecords(b, map[string]int{carol: 3})
	r.wantRecords(c, map[string]int{owner: 1})
	r.consistent()
	if got := len(r.posts()); got != 3 {
		t.Errorf("%d posts", got)
	}
	pushes, err := r.Pushes(10, false)
	if err != nil || len(pushes) != 3 || pushes[0].Repository != "other/app" || pushes[1].Repository != "carol/app" || *pushes[1].LayersRecorded != 3 {
		t.Errorf("pushes are %+v, %v", pushes, err)
	}
	r.delete(b)
	r.drain()
	r.wantRecords(b, map[string]int{})
}

// Pushes whose owner can't be resolved do not hold up others, survive a restart, and have
// their records once, with the key and the time of the push, when the handle is resolved.
func TestParked(t *testing.T) {
	t.Parallel()
	r, h := newOwnedRig(t, shortWindows())
	a, b := image("a", 2).as("carol/app", "v1.0.0"), image("b", 3).as("oss/app", "v1.0.0")
	r.push(a)
	r.push(a.as("carol/copy", "v1.0.0"))
	r.push(b)
	r.drain()
	r.wantRecords(a, map[string]int{})
	r.wantRecords(b, map[string]int{alice: 3})
	if got := len(r.posts()); got != 3 {
		t.Errorf("%d posts before the handle is resolved, want 3", got)
	}
	pending := func() (states []string) {
		pushes, err := r.Pushes(10, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pushes {
			states = append(states, p.State)
		}
		return states
	}
	if got := pending(); !slices.Equal(got, []string{stateDone, statePending, statePending}) {
		t.Errorf("states are %v", got)
	}
	first := r.event(1)
	r.reopen(shortWindows())
	r.drain()
	if r.parked.Len() != 2 {
		t.Errorf("%d pushes are parked after the restart", r.parked.Len())
	}
	h.set(carolHandle, carol)
	r.released()
	r.wantRecords(a, map[string]int{carol: 2})
	r.consistent()
	if got := pending(); !slices.Equal(got, []string{stateDone, stateDone, stateDone}) {
		t.Errorf("states are %v", got)
	}
	if e, found, err := r.ledger.Get(carol, a.Digest); !found || err != nil || e.First != first.TID || len(e.Repositories) != 2 {
		t.Errorf("ledger has %+v, %v, %v; the push had TID %d", e, found, err, first.TID)
	}
	if got, posts := r.pushes(), len(r.posts()); got != 1 || posts != 3 { // pushes counts oss/app
		t.Errorf("%d pushes counted, %d posts", got, posts)
	}
}

// A crash between the steps of a release changes neither the number of records nor their
// owner, even if the handle has moved to another DID meanwhile.
func TestParkedCrash(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(r *rig) error{
		"before the DID is noted": func(*rig) error { return nil },
		"after the DID is noted": func(r *rig) error {
			_, err := r.parked.Resolve(carolHandle, carol)
			return err
		},
		"after one push is repeated": func(r *rig) error {
			if _, err := r.parked.Resolve(carolHandle, carol); err != nil {
				return err
			}
			return r.repeat(context.Background(), r.parked.Of(carolHandle)[0], carol)
		},
		"after the pushes are removed": func(r *rig) error {
			if _, err := r.parked.Resolve(carolHandle, carol); err != nil {
				return err
			}
			for _, p := range r.parked.Of(carolHandle) {
				if err := errors.Join(r.repeat(context.Background(), p, carol), r.parked.Remove(p.Handle, p.Seq)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, h := newOwnedRig(t, nil)
			a, b := image("a", 2).as("carol/app", "v1"), image("b", 3).as("carol/app", "v2")
			r.push(a)
			r.push(b)
			r.drain()
			r.stopSinks()
			if err := crash(r); err != nil {
				t.Fatal(err)
			}
			want := carol
			if name == "before the DID is noted" {
				want = bob
			}
			h.set(carolHandle, bob)
			r.reopen(nil)
			r.released()
			r.wantRecords(a, map[string]int{want: 2})
			r.wantRecords(b, map[string]int{want: 3})
			r.consistent(reconcile.Missing) // storage belongs to bob now
			// What is pushed later has the new DID.
			c := image("c", 1).as("carol/app", "v3")
			r.push(c)
			r.released()
			r.wantRecords(c, map[string]int{bob: 1})
		})
	}
}

// A parked push has no effect if its image is deleted before its handle is resolved, also
// if storage can't be asked.
func TestParkedDeleted(t *testing.T) {
	t.Parallel()
	for _, stored := range []bool{true, false} {
		t.Run(fmt.Sprint(stored), func(t *testing.T) {
			t.Parallel()
			r, h := newOwnedRig(t, nil)
			a, b := image("a", 2).as("carol/app", "v1"), image("b", 3).as("carol/app", "v2")
			if !stored {
				r.storage = nil
				r.reopen(nil)
			}
			for _, p := range []Push{a, b} {
				in := r.intend(p)
				if stored {
					r.storage.put(p)
				}
				r.complete(in)
			}
			r.drain()
			in := r.intendDelete(a)
			if stored {
				r.storage.remove(a)
			}
			r.complete(in)
			r.drain()
			if r.parked.Len() != 1 {
				t.Errorf("%d pushes are parked", r.parked.Len())
			}
			h.set(carolHandle, carol)
			r.released()
			r.wantRecords(a, map[string]int{})
			r.wantRecords(b, map[string]int{carol: 3})
			pushes, err := r.Pushes(10, false)
			if err != nil || len(pushes) != 2 || pushes[1].State != stateDone || pushes[1].Reason != "not in storage any more" {
				t.Errorf("pushes are %+v, %v", pushes, err)
			}
		})
	}
}

// A push is given up with its reason when its handle is not resolved for three days.
func TestParkedTooLong(t *testing.T) {
	t.Parallel()
	r, _ := newOwnedRig(t, nil)
	a := image("a", 2).as("carol/app", "v1")
	r.push(a)
	r.drain()
	r.stop()
	r.now = func() time.Time { return time.Now().Add(parked.GiveUpAfter - time.Minute) }
	r.open(nil)
	r.drain()
	if err := r.releaseParked(t.Context()); err != nil || r.parked.Len() != 1 {
		t.Errorf("%d parked after almost three days, %v", r.parked.Len(), err)
	}
	r.stop()
	r.now = func() time.Time { return time.Now().Add(parked.GiveUpAfter + time.Minute) }
	r.open(nil)
	r.released()
	letters := r.letters()
	if len(letters) != 1 || letters[0].Sink != records.Name || letters[0].First != 1 || letters[0].Repository != "carol/app" ||
		letters[0].Digest != a.Digest || !strings.Contains(letters[0].Reason, carolHandle) || letters[0].Event == nil {
		t.Errorf("letters are %+v", letters)
	}
	pushes, err := r.Pushes(10, false)
	if err != nil || len(pushes) != 1 || pushes[0].State != stateFailed || !strings.Contains(pushes[0].Reason, "72 hours") {
		t.Errorf("pushes are %+v, %v", pushes, err)
	}
}

// Beyond the limit pushes of a handle are given up, and those of others are not.
func TestParkedLimit(t *testing.T) {
	t.Parallel()
	r, h := newOwnedRig(t, nil)
	r.stopSinks()
	a := image("a", 1)
	for i := range 1100 {
		r.push(a.as(fmt.Sprintf("carol/app%d", i), ""))
	}
	r.reopen(nil)
	r.drain()
	if got := r.parked.Len(); got != 1000 {
		t.Errorf("%d pushes are parked", got)
	}
	if got := len(r.letters()); got != 100 {
		t.Errorf("%d dead letters", got)
	}
	h.set(carolHandle, carol)
	r.released()
	if e, found, err := r.ledger.Get(carol, a.Digest); !found || err != nil || len(e.Repositories) != 1000 {
		t.Errorf("%d repositories in the ledger, %v, %v", len(e.Repositories), found, err)
	}
}

// If the commit that parks a push fails, memory and disk agree afterwards.
func TestParkedCommitFails(t *testing.T) {
	t.Parallel()
	r, _ := newOwnedRig(t, nil)
	r.stopSinks()
	var b state.Batch
	p := parked.Push{Seq: 7, Handle: carolHandle, Image: "carol/app@sha256:00", Event: []byte("{}")}
	if err := r.parked.Put(&b, &p); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("disk")
	if err := r.parked.Committed(failed); !errors.Is(err, failed) || r.parked.Len() != 0 {
		t.Errorf("%v, %d parked after a commit that was not applied", err, r.parked.Len())
	}
	if err := r.parked.Put(&b, &p); err != nil {
		t.Fatal(err)
	}
	if err := r.state.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
	if err := r.parked.Committed(failed); !errors.Is(err, failed) || r.parked.Len() != 1 {
		t.Errorf("%v, %d parked after a commit that was applied", err, r.parked.Len())
	}
}

// When the rules change, records move to the new owners, without posts, and parked pushes
// follow the new rules.
func TestOwnersChanged(t *testing.T) {
	t.Parallel()
	r, h := newOwnedRig(t, shortWindows())
	a, b, c := image("a", 2).as("oss/app", "v1.0.0"), image("b", 3).as("carol/app", "v1.0.0"), image("c", 1).as("other/app", "v1.0.0")
	for _, p := range []Push{a, b, c} {
		r.push(p)
	}
	r.drain()
	change := func(options string, rules ...owners.Rule) {
		r.options, r.owners = options, rules
		r.reopen(shortWindows())
		r.reconciled()
	}
	change("second",
		owners.Rule{Repositories: []string{"carol/**", "other/**"}, Owner: owners.Parse(bob)},
		owners.Rule{Repositories: []string{"oss/**"}, Owner: owners.Parse(carolHandle)})
	r.until("carol's push is parked and bob's is not", func() bool {
		return r.parked.Len() == 1 && r.parked.Of(carolHandle)[0].Repository() == "oss/app"
	})
	r.drain()
	r.wantRecords(a, map[string]int{alice: 2}) // they move when the new owner is resolved
	r.wantRecords(b, map[string]int{bob: 3})
	r.wantRecords(c, map[string]int{bob: 1})
	h.set(carolHandle, carol)
	r.released()
	r.wantRecords(a, map[string]int{carol: 2})
	r.consistent()
	change("third")
	for _, p := range []Push{a, b, c} {
		r.wantRecords(p, map[string]int{owner: p.Layers})
	}
	r.consistent()
	if got, posts := r.pushes(), len(r.posts()); got != 1 || posts != 3 { // pushes counts oss/app
		t.Errorf("%d pushes counted, %d posts", got, posts)
	}
	if got := len(r.letters()); got != 0 {
		t.Errorf("%d dead letters", got)
	}
}

// A rebuilt entry of an owner that a rule names is one of this registry's images, unless
// other registries may report images: its records go if the image is gone.
func TestOwnersRebuilt(t *testing.T) {
	t.Parallel()
	for _, unreported := range []bool{true, false} {
		t.Run(fmt.Sprint(unreported), func(t *testing.T) {
			t.Parallel()
			r, h := newOwnedRig(t, nil)
			h.set(carolHandle, carol)
			a, b := image("a", 2).as("carol/app", "v1"), image("b", 3).as("carol/app", "v2")
			r.push(a)
			r.push(b)
			r.drain()
			r.unreported = unreported
			r.storage.remove(b)
			if err := r.stores.WantRebuild(); err != nil {
				t.Fatal(err)
			}
			r.reopen(nil)
			r.reconciled()
			r.wantRecords(a, map[string]int{carol: 2})
			want := map[string]int{carol: 3}
			if unreported {
				want = map[string]int{}
				r.consistent()
			}
			r.wantRecords(b, want)
			if unreported {
				r.delete(a)
				r.drain()
				r.wantRecords(a, map[string]int{})
			}
		})
	}
}

// An interrupted push keeps the handle of its owner.
func TestOwnerOfInterruptedPush(t *testing.T) {
	t.Parallel()
	r, h := newOwnedRig(t, nil)
	a := image("a", 2).as("carol/app", "v1")
	r.intend(a)
	r.storage.put(a)
	r.reopen(nil)
	r.until("the push is parked", func() bool { return r.parked.Len() == 1 })
	h.set(carolHandle, carol)
	r.released()
	r.wantRecords(a, map[string]int{carol: 2})
}

// A pull's event has the owner's handle, in the encoding of other events.
func TestOwnerOfPull(t *testing.T) {
	t.Parallel()
	r, _ := newOwnedRig(t, nil)
	r.Pull(Pull{Method: "GET", Repository: "carol/app", Digest: "sha256:00", MediaType: "x"})
	entries, err := r.journal.Read(journal.Pulls, 0, 1, 1)
	if err != nil || len(entries) != 1 || !strings.Contains(string(entries[0].Payload), `"ownerHandle":"`+carolHandle+`"`) {
		t.Errorf("events are %+v, %v", entries, err)
	}
}

// A push that a crash interrupted is recorded for the owner that its repository has then.
func TestOwnerChangesDuringPush(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := image("a", 2).as("oss/app", "v1")
	r.intend(p)
	r.storage.put(p)
	r.owners = []owners.Rule{{Repositories: []string{"oss/*"}, Owner: owners.Parse(alice)}}
	r.reopen(nil)
	r.until("the push is recorded", func() bool { return len(r.records()) > 0 })
	r.wantOwned("after the restart", map[string]int{alice: 2})
}
