package notifier

import (
	"testing"
)

// Intents that a crash left open are resolved by what storage has.
func TestResolveIntents(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	kept, gone := image("kept", 2), image("gone", 5)
	r.push(kept.as("oss/app", "kept"))
	r.push(gone.as("oss/app", "gone"))
	r.drain()

	stored, lost, untagged, down := image("stored", 2).as("oss/app", "v1"), image("lost", 3).as("oss/app", "v2"), image("untagged", 4).as("oss/app", "v3"), image("down", 1).as("oss/app", "v4")
	for _, p := range []Push{stored, lost, untagged, down} {
		r.intend(p)
	}
	r.intendDelete(kept)
	r.intendDelete(gone)
	r.stop()
	r.storage.put(stored)
	r.storage.put(untagged.as("oss/app", ""))
	r.storage.remove(gone)
	r.storage.fail(true)
	r.open(shortWindows())
	if err := r.resolveIntents(t.Context()); err == nil {
		t.Error("no error while storage is down")
	}
	if open := len(r.journal.Unresolved()); open != 6 {
		t.Errorf("%d intents are open while storage is down, want 6", open)
	}

	// Storage is available again, without a restart.
	r.storage.fail(false)
	if err := r.resolveIntents(t.Context()); err != nil {
		t.Fatal(err)
	}
	if open := len(r.journal.Unresolved()); open != 0 {
		t.Errorf("%d intents are open", open)
	}
	r.drain()
	if got := len(r.records()); got != 2+2+4 {
		t.Errorf("%d records, want those of kept, stored and untagged, 8", got)
	}
	if got := len(r.posts()); got != 3 {
		t.Errorf("%d posts, want those of kept, gone and stored", got)
	}
	if got := r.pushes(); got != 3 {
		t.Errorf("%d pushes counted, want 3: one without its tag is not counted", got)
	}
	r.consistent()
}

// A released intent is resolved without a restart.
func TestRelease(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b := image("a", 2), image("b", 3)
	in := r.intend(a)
	r.storage.put(a)
	in.Release()
	r.intend(b).Release()
	r.until("they are resolved", func() bool { return len(r.journal.Unresolved()) == 0 && len(r.records()) == 2 })
	r.drain()
	r.consistent()
}
