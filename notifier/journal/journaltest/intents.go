package journaltest

import (
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/journal"
)

func intentStates(t *testing.T, f *fixture) {
	done, abandoned := f.begin(77, "done"), f.begin(77, "abandoned")
	f.begin(77, "open")
	f.begin(77, "also open")
	if seq, err := f.j.Complete(ctx, done, 78, []byte("event")); seq != 1 || err != nil {
		t.Fatalf("Complete = %d, %v", seq, err)
	}
	if _, err := f.j.Complete(ctx, done, 78, []byte("event")); !errors.Is(err, journal.ErrNotOpen) {
		t.Errorf("second Complete: %v, want ErrNotOpen", err)
	}
	if err := f.j.Abandon(abandoned); err != nil {
		t.Fatal(err)
	}
	if err := f.j.Abandon(abandoned); err != nil {
		t.Errorf("second Abandon: %v", err)
	}
	if got := f.j.Unresolved(); len(got) != 0 {
		t.Errorf("Unresolved returns %d intents of this process, want none", len(got))
	}
	for range 2 {
		f.reopen()
		got := f.j.Unresolved()
		if len(got) != 2 || string(got[0].Payload) != "open" || string(got[1].Payload) != "also open" || got[0].Order != 77 {
			t.Fatalf("Unresolved = %+v", got)
		}
	}
	got := f.j.Unresolved()
	if later := f.begin(77, "later"); later == got[0].Intent || later == got[1].Intent {
		t.Fatal("the id of an open intent was used again")
	}
	if seq, err := f.j.Complete(ctx, got[0].Intent, 79, []byte("second")); seq != 2 || err != nil {
		t.Fatalf("Complete = %d, %v", seq, err)
	}
	if err := f.j.Abandon(got[1].Intent); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if got := f.j.Unresolved(); len(got) != 1 || string(got[0].Payload) != "later" {
		t.Errorf("Unresolved = %+v", got)
	}
	f.wantSeqs(journal.Pushes, 0, 1, 2)
}

// movedIntents checks that open intents keep only a few segments on disk, however
// many segments there were.
func movedIntents(t *testing.T, f *fixture) {
	if err := f.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	var open []journal.Intent
	begun := 0
	begin := func() {
		open = append(open, f.begin(7, fmt.Sprint(begun)))
		begun++
	}
	pass := func() {
		last := f.append(journal.Pushes, 200)
		if err := f.j.SetCursor(journal.Pushes, "reader", last); err != nil {
			t.Fatal(err)
		}
		AwaitSize(t, f.j, journal.Pushes, 4, 0)
	}
	var completed uint64
	for round := range 6 {
		begin()
		begin()
		pass()
		begin()
		pass()
		if round%2 == 1 {
			f.reopen()
		}
		// The oldest intent, which was moved many times, is completed.
		var err error
		if completed, err = f.j.Complete(ctx, open[0], 8, []byte("completed")); err != nil {
			t.Fatal(err)
		}
		if err := f.j.Abandon(open[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := f.j.Complete(ctx, open[1], 8, nil); !errors.Is(err, journal.ErrNotOpen) {
			t.Errorf("Complete of an abandoned intent: %v, want ErrNotOpen", err)
		}
		open = open[2:]
	}
	if entries := f.read(journal.Pushes, completed-1); len(entries) != 1 || string(entries[0].Payload) != "completed" {
		t.Errorf("Read = %+v, want the event that was completed last", entries)
	}
	for range 3 {
		f.reopen()
		got := f.j.Unresolved()
		if len(got) != len(open) {
			t.Fatalf("%d intents are open, want %d", len(got), len(open))
		}
		for i, u := range got {
			if u.Intent != open[i] || string(u.Payload) != fmt.Sprint(begun-len(open)+i) || u.Order != 7 {
				t.Errorf("intent %d is %+v", i, u)
			}
		}
		pass()
	}
}

// manyOpenIntents checks that open intents that fill more than half of a segment
// are not moved again and again.
func manyOpenIntents(t *testing.T, f *fixture) {
	f.cfg.Limit = 20_000
	f.reopen()
	if err := f.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	const n = 400
	for i := range n {
		f.begin(1, fmt.Sprint(i))
	}
	before := f.j.Status(journal.Pushes).Bytes
	for range 10 {
		last := f.append(journal.Pushes, 100)
		if err := f.j.SetCursor(journal.Pushes, "reader", last); err != nil {
			t.Fatal(err)
		}
	}
	f.reopen()
	if st := f.j.Status(journal.Pushes); st.Bytes > 3*before {
		t.Errorf("Status = %+v, with %d bytes of open intents", st, before)
	}
	got := f.j.Unresolved()
	if len(got) != n {
		t.Fatalf("%d intents are open, want %d", len(got), n)
	}
	for i, u := range got {
		if string(u.Payload) != fmt.Sprint(i) {
			t.Fatalf("intent %d is %q", i, u.Payload)
		}
	}
}

func intentsLeftOpen(t *testing.T, f *fixture) {
	done, abandoned, left, kept := f.begin(5, "done"), f.begin(5, "abandoned"), f.begin(5, "left"), f.begin(5, "kept")
	if _, err := f.j.Complete(ctx, done, 5, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.j.Abandon(abandoned); err != nil {
		t.Fatal(err)
	}
	for _, in := range []journal.Intent{left, done, abandoned, left} {
		f.j.LeaveOpen(in)
	}
	got := f.j.Unresolved()
	if len(got) != 1 || got[0].Intent != left || string(got[0].Payload) != "left" || got[0].Order != 5 {
		t.Fatalf("Unresolved = %+v, want the intent that was left open", got)
	}
	if seq, err := f.j.Complete(ctx, left, 5, nil); seq != 2 || err != nil {
		t.Errorf("Complete = %d, %v", seq, err)
	}
	if got := f.j.Unresolved(); len(got) != 0 {
		t.Errorf("Unresolved = %+v", got)
	}
	f.reopen()
	if got := f.j.Unresolved(); len(got) != 1 || got[0].Intent != kept {
		t.Errorf("Unresolved = %+v after a restart", got)
	}
}

func abandonedIntents(t *testing.T, f *fixture) {
	f.cfg.SegmentSize, f.cfg.Limit = 100_000, 300_000
	f.cfg.Dropped = func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
		t.Errorf("events %d to %d of %s are dropped", first, last, cursor)
		return nil
	}
	f.reopen()
	if err := f.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	f.append(journal.Pushes, 1)
	abandon := func(n int) {
		for range n {
			if err := f.j.Abandon(f.begin(1, string(make([]byte, journal.MaxIntent)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	abandon(8)
	last := f.append(journal.Pushes, 1)
	f.reopen()
	f.wantSeqs(journal.Pushes, 0, 1, last)

	// Their size on disk is limited too.
	var mu sync.Mutex
	var dropped uint64
	f.cfg.Dropped = func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
		mu.Lock()
		defer mu.Unlock()
		dropped = last
		return nil
	}
	f.reopen()
	abandon(40)
	last = f.append(journal.Pushes, 1)
	AwaitSize(t, f.j, journal.Pushes, 0, 600_000+2*165_000)
	f.reopen()
	mu.Lock()
	defer mu.Unlock()
	f.wantSeqs(journal.Pushes, 0, dropped+1, last)
}

func openIntentLimit(t *testing.T, f *fixture) {
	race.Skip(t, "it begins large intents one after another")
	f.cfg.SegmentSize = 1 << 20
	f.reopen()
	var open []journal.Intent
	var err error
	for err == nil {
		var in journal.Intent
		if in, err = f.j.Begin(ctx, 1, make([]byte, journal.MaxIntent)); err == nil {
			open = append(open, in)
		}
	}
	if !errors.Is(err, journal.ErrTooMany) || len(open) != 511 { // record headers take the space of the 512th
		t.Fatalf("Begin after %d: %v, want ErrTooMany", len(open), err)
	}
	if _, err := f.j.Append(ctx, journal.Pushes, 1, nil); err != nil {
		t.Error(err)
	}
	f.reopen()
	if _, err := f.j.Begin(ctx, 1, make([]byte, journal.MaxIntent)); !errors.Is(err, journal.ErrTooMany) {
		t.Errorf("Begin after a restart: %v, want ErrTooMany", err)
	}
	if err := f.j.Abandon(open[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := f.j.Begin(ctx, 1, make([]byte, journal.MaxIntent)); err != nil {
		t.Errorf("Begin below the limit: %v", err)
	}
}
