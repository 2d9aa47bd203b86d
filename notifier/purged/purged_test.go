package purged

import (
	"testing"

	"github.com/tidings-dev/tidings/notifier/state"
)

// A repository is marked from its purge until the first push after the last one, also if the
// records sink has not completed it.
func TestMarked(t *testing.T) {
	t.Parallel()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := New(state.OnPebble(db))
	want := func(when string, marked bool, upTo uint64, completed ...bool) {
		t.Helper()
		if got, err := s.Marked(new(state.Batch), "oss/app"); err != nil || got != marked {
			t.Errorf("%s: marked %v, %v", when, got, err)
		}
		if got, err := s.UpTo("oss/app"); err != nil || got != upTo {
			t.Errorf("%s: up to %d, %v", when, got, err)
		}
		for i, want := range completed {
			if got, err := s.Completed("oss/app", uint64(10*(i+1))); err != nil || got != want {
				t.Errorf("%s: purge %d completed %v, %v", when, 10*(i+1), got, err)
			}
		}
		if got, err := s.Marked(new(state.Batch), "oss/app/sub"); err != nil || got {
			t.Errorf("%s: another repository is marked: %v", when, err)
		}
	}
	commit := func(change func(b *state.Batch) error) {
		t.Helper()
		var b state.Batch
		if err := change(&b); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Commit(&b, state.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	push := func(b *state.Batch) error { return s.NotePush(b, "oss/app") }
	complete := func(seq uint64) func(*state.Batch) error {
		return func(b *state.Batch) error { s.Complete(b, "oss/app", seq); return nil }
	}
	raise := func(seq uint64) {
		t.Helper()
		if err := s.Raise("oss/app", seq); err != nil {
			t.Fatal(err)
		}
	}
	commit(push)
	want("never purged", false, 0, false)
	raise(10)
	want("recorded", true, 10, false)
	commit(complete(10))
	want("completed", true, 10, true, false)
	commit(push)
	want("pushed to", false, 10, true, false)
	raise(20)
	raise(10)
	want("purged again", true, 20, true, false)
	commit(push) // the purge was given up
	want("pushed to again", false, 20, true, true)
	if last, err := s.Last(); err != nil || last != 20 {
		t.Errorf("the last purge is %d, %v", last, err)
	}
	for seq, want := range map[uint64]bool{19: true, 20: false, 21: false} {
		if got, err := s.After("oss/app", seq); err != nil || got != want {
			t.Errorf("purged after %d: %v, %v", seq, got, err)
		}
	}
}
