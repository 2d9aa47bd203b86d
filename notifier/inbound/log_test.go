package inbound

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/state"
)

// Names are known for seven days, and the newest ones for longer: after a jump of the
// system clock they are still known.
func TestPrune(t *testing.T) {
	t.Parallel()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := state.OnPebble(db)
	now := time.Now()
	l := New(Config{State: s, Now: func() time.Time { return now }})
	var b state.Batch
	name := func(i int) string { return fmt.Sprint("name ", i) }
	for i := range keepNames + 100 {
		at := now.Add(-keepFor - time.Hour)
		if i >= 50 {
			at = now.Add(time.Duration(i) - time.Hour)
		}
		if err := (&row{Seq: uint64(i + 1), Time: at}).put(&b, name(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		when   string
		after  time.Duration
		oldest int
	}{
		{"now", 0, 50},
		{"after a year", 365 * 24 * time.Hour, 100},
	} {
		now = now.Add(test.after)
		var b state.Batch
		if err := l.prune(&b); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(&b, state.Sync); err != nil {
			t.Fatal(err)
		}
		for i, known := range map[int]bool{test.oldest - 1: false, test.oldest: true, keepNames + 99: true} {
			if r, err := l.stored(name(i)); err != nil || (r != nil) != known {
				t.Errorf("%s: notification %d is %+v, %v; want known: %v", test.when, i, r, err, known)
			}
		}
	}
}
