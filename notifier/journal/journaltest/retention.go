package journaltest

import (
	"errors"
	"iter"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
)

func retention(t *testing.T, f *fixture) {
	for _, name := range []string{"fast", "slow"} {
		if err := f.j.Register(journal.Pushes, name); err != nil {
			t.Fatal(err)
		}
	}
	last := f.append(journal.Pushes, 200)
	f.wantSeqs(journal.Pushes, 0, 1, last)
	before := f.j.Status(journal.Pushes).Segments
	if before < 4 {
		t.Fatalf("%d segments, want at least 4", before)
	}
	set := func(name string, seq uint64) {
		if err := f.j.SetCursor(journal.Pushes, name, seq); err != nil {
			t.Fatal(err)
		}
	}
	set("fast", last)
	if got := f.j.Status(journal.Pushes).Segments; got != before {
		t.Fatalf("%d of %d segments left, although one reader has read none", got, before)
	}
	set("slow", 150)
	f.reopen()
	st := f.j.Status(journal.Pushes)
	if st.Segments >= before || st.First > 151 {
		t.Fatalf("Status = %+v with the slowest reader at 150", st)
	}
	f.wantSeqs(journal.Pushes, 150, 151, last)
	f.wantSeqs(journal.Pushes, 0, st.First, last)
	set("slow", last)
	set("slow", 10)
	if got := f.j.Cursor(journal.Pushes, "slow"); got != last {
		t.Errorf("the cursor moved back to %d", got)
	}
	f.reopen()
	if st := f.j.Status(journal.Pushes); st.Segments != 1 || st.Last != last {
		t.Errorf("Status = %+v with every event read", st)
	}
	if got := f.j.Cursor(journal.Pushes, "slow"); got != last {
		t.Errorf("Cursor = %d, want %d", got, last)
	}
	if seq := f.append(journal.Pushes, 1); seq != last+1 {
		t.Errorf("event %d follows event %d", seq, last)
	}
	if f.j.LastOrder() != 1 {
		t.Errorf("LastOrder = %d after segments were deleted, want 1", f.j.LastOrder())
	}
	if err := f.j.SetCursor(journal.Pushes, "slow", last+2); err == nil {
		t.Error("the cursor moved past the last event")
	}
	if err := f.j.Forget(journal.Pushes, "slow"); err != nil || len(f.j.Cursors(journal.Pushes)) != 1 {
		t.Errorf("Forget: %v, %v", err, f.j.Cursors(journal.Pushes))
	}
}

// lazyCursors checks that the limit drops no events that a reader has passed.
func lazyCursors(t *testing.T, f *fixture) {
	f.cfg.Limit = 8000
	f.cfg.Dropped = func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
		t.Errorf("events %d to %d of %s are dropped", first, last, cursor)
		return nil
	}
	f.reopen()
	for _, name := range []string{"own", "elsewhere"} {
		if err := f.j.Register(journal.Pulls, name); err != nil {
			t.Fatal(err)
		}
	}
	var last uint64
	for range 60 {
		last = f.append(journal.Pulls, 10)
		f.read(journal.Pulls, last-1)
		if err := f.j.SetCursor(journal.Pulls, "own", last); err != nil {
			t.Fatal(err)
		}
		if err := f.j.SetCursorLazily(journal.Pulls, "elsewhere", last); err != nil {
			t.Fatal(err)
		}
		AwaitSize(t, f.j, journal.Pulls, 2, 0)
	}
	if err := f.j.SetCursorLazily(journal.Pulls, "elsewhere", last+1); err == nil {
		t.Error("the cursor moved past the last event")
	}
	// The same without another cursor.
	if err := f.j.Forget(journal.Pulls, "own"); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		last = f.append(journal.Pulls, 10)
		f.read(journal.Pulls, last-1)
		if err := f.j.SetCursorLazily(journal.Pulls, "elsewhere", last); err != nil {
			t.Fatal(err)
		}
		AwaitSize(t, f.j, journal.Pulls, 2, 0)
	}
	first := f.j.Status(journal.Pulls).First
	f.reopen()
	if got := f.j.Cursor(journal.Pulls, "elsewhere"); got+1 < first || got > last {
		t.Errorf("the cursor is at %d, want from %d to %d", got, first-1, last)
	}
}

func sizeLimit(t *testing.T, f *fixture) {
	drops := &drops{t: t, refuse: true}
	f.cfg.Limit = 8000
	f.cfg.Dropped = drops.add
	f.reopen()
	for _, name := range []string{"stopped", "running"} {
		if err := f.j.Register(journal.Pulls, name); err != nil {
			t.Fatal(err)
		}
	}
	last := f.append(journal.Pulls, 300)
	f.wantSeqs(journal.Pulls, 0, 1, last) // all are kept while Dropped returns an error
	if err := f.j.SetCursor(journal.Pulls, "running", last); err != nil {
		t.Fatal(err)
	}
	drops.setRefuse(false)
	last = f.append(journal.Pulls, 300)
	AwaitSize(t, f.j, journal.Pulls, 0, 8000+2*2100)
	drops.setRefuse(true) // so that the reopened journal drops no more
	f.reopen()            // Close waits for the background work
	dropped := drops.through("stopped")
	if dropped == 0 {
		t.Fatal("nothing was dropped")
	}
	if got := f.j.Cursor(journal.Pulls, "stopped"); got != dropped {
		t.Errorf("the cursor is at %d, want %d, the last dropped event", got, dropped)
	}
	// Close may run after the events of a segment are dropped and before it is deleted.
	if st := f.j.Status(journal.Pulls); st.Bytes > 8000+2*2100 || st.First > dropped+1 {
		t.Errorf("Status = %+v, want First at most %d and about 8000 bytes", st, dropped+1)
	}
	f.wantSeqs(journal.Pulls, dropped, dropped+1, last)
}

// drops are the calls of Config.Dropped, which fail while refuse is set.
type drops struct {
	t      *testing.T
	mu     sync.Mutex
	refuse bool
	list   []drop
}

type drop struct {
	cursor      string
	first, last uint64
}

func (d *drops) setRefuse(refuse bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = refuse
}

// add is Config.Dropped. It checks that all dropped events can be read.
func (d *drops) add(_ journal.Stream, cursor string, first, last uint64, events iter.Seq2[journal.Entry, error]) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse {
		return errors.New("refused")
	}
	seq := first
	for e, err := range events {
		if errors.Is(err, journal.ErrClosed) {
			return err
		}
		if err != nil || e.Seq != seq || string(e.Payload) != "event" {
			d.t.Errorf("dropped event %d is %+v, %v", seq, e, err)
		}
		seq++
	}
	if seq != last+1 {
		d.t.Errorf("events %d to %d are dropped, but only %d could be read", first, last, seq-first)
	}
	d.list = append(d.list, drop{cursor, first, last})
	return nil
}

// through returns the last dropped event of a cursor, after checking that all events up to it
// were dropped, once and in order.
func (d *drops) through(cursor string) (last uint64) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, call := range d.list {
		if call.cursor != cursor {
			continue
		}
		if call.first != last+1 || call.last < call.first {
			d.t.Fatalf("events %d to %d are dropped, want from %d", call.first, call.last, last+1)
		}
		last = call.last
	}
	return last
}
