package inbound

import (
	"errors"
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

// Names of unlisted accounts are known for an hour, and do not shorten the time of others.
func TestPruneUnlisted(t *testing.T) {
	t.Parallel()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := state.OnPebble(db)
	now := time.Now()
	l := New(Config{State: s, Now: func() time.Time { return now }})
	batch := l.NewBatch()
	for i := range keepNames + 100 {
		id := &ID{Token: fmt.Sprint("unlisted ", i), Unlisted: true}
		if repeated, err := batch.Repeated(uint64(i+1), now, id); repeated || err != nil {
			t.Fatal(repeated, err)
		}
	}
	if _, err := batch.Repeated(keepNames+200, now, &ID{Token: "other"}); err != nil {
		t.Fatal(err)
	}
	commit := func() {
		t.Helper()
		var b state.Batch
		if err := batch.AddTo(&b); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(&b, state.Sync); err != nil {
			t.Fatal(err)
		}
	}
	known := func(name string) bool {
		t.Helper()
		r, err := l.stored(name)
		if err != nil {
			t.Fatal(err)
		}
		return r != nil
	}
	commit()
	for _, after := range []time.Duration{0, keepBriefly + time.Minute} {
		now = now.Add(after)
		batch = l.NewBatch()
		if _, err := batch.Repeated(keepNames+300, now, &ID{Token: "next"}); err != nil {
			t.Fatal(err)
		}
		commit()
		if got := known("unlisted 0"); got != (after == 0) {
			t.Errorf("after %s: known: %v", after, got)
		}
		if !known("unlisted 100") || !known("other") {
			t.Errorf("after %s: a newer name, or one of another account, is gone", after)
		}
	}
}

// Pending names of unlisted accounts have a part of the memory, and get it back.
func TestPendingUnlisted(t *testing.T) {
	t.Parallel()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	counted := uint64(0)
	l := New(Config{
		State: state.OnPebble(db), Now: time.Now, Counted: func() uint64 { return counted },
		Uncounted: func(visit func(Recorded)) error {
			visit(Recorded{Seq: 1, ID: &ID{Token: "before the start", Unlisted: true}})
			return nil
		},
	})
	unlisted := func(i int) *ID {
		return &ID{Token: fmt.Sprint("unlisted ", i), Key: fmt.Sprint("key ", i), Unlisted: true}
	}
	n := 0
	for ; ; n++ {
		_, err := l.Begin(t.Context(), unlisted(n))
		if errors.Is(err, ErrBusy) {
			break
		}
		if err != nil || n > maxPending {
			t.Fatal(n, err)
		}
		l.End(unlisted(n), uint64(n+2))
	}
	if n != maxPendingUnlisted/2 {
		t.Errorf("%d notifications with a token and a key are pending", n)
	}
	if _, err := l.Begin(t.Context(), &ID{Token: "configured"}); err != nil {
		t.Errorf("a configured account: %v", err)
	}
	l.End(&ID{Token: "configured"}, 0)
	l.Counted(uint64(n + 2))
	if len(l.pending) != 0 || l.brief != 0 {
		t.Errorf("%d names are pending, %d of unlisted accounts", len(l.pending), l.brief)
	}
	if _, err := l.Begin(t.Context(), unlisted(n)); err != nil {
		t.Errorf("after all are counted: %v", err)
	}
	l.End(unlisted(n), 0)
	if len(l.pending) != 0 || l.brief != 0 {
		t.Errorf("%d names are pending, %d of unlisted accounts", len(l.pending), l.brief)
	}
}
