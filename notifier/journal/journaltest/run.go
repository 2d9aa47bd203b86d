package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// An Opener opens the journal in cfg.Dir. Run closes what it opens.
type Opener func(journal.Config) (*journal.Journal, error)

// Run checks the documented behavior of a journal. Each check closes and reopens
// the journal.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name  string
		check func(*testing.T, *bench)
	}{
		{"events are numbered and kept in order", ordered},
		{"streams are numbered separately", streams},
		{"an intent is open until it is completed or abandoned", intents},
		{"id and clock id persist", identity},
		{"segments are kept until all cursors have passed", retention},
		{"open intents are moved out of a deleted segment", moved},
		{"many open intents are moved no more than necessary", manyOpen},
		{"an intent that is left open can be completed by others", leftOpen},
		{"abandoned intents do not count toward the limit", abandoned},
		{"the size of open intents is limited", tooMany},
		{"a reader may store its cursor elsewhere", passed},
		{"at the limit the oldest events are dropped", limit},
		{"reads are bounded and may start anywhere", reads},
		{"Wait ends with an event, its context or Close", waiting},
		{"concurrent appends and reads", together},
		{"arguments are checked", arguments},
		{"a journal behind a reader takes a new id", behind},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := &bench{T: t, open: open, cfg: journal.Config{Dir: t.TempDir(), SegmentSize: 2000}}
			b.reopen()
			t.Cleanup(func() { b.j.Close() })
			c.check(t, b)
		})
	}
}

type bench struct {
	*testing.T
	open Opener
	cfg  journal.Config
	j    *journal.Journal
}

func (b *bench) reopen() {
	b.Helper()
	if b.j != nil {
		if err := b.j.Close(); err != nil {
			b.Fatalf("Close: %v", err)
		}
	}
	j, err := b.open(b.cfg)
	if err != nil {
		b.Fatalf("Open: %v", err)
	}
	b.j = j
}

var ctx = context.Background()

func (b *bench) append(s journal.Stream, n int) (last uint64) {
	b.Helper()
	for range n {
		seq, err := b.j.Append(ctx, s, 1, []byte("event"))
		if err != nil {
			b.Fatalf("Append: %v", err)
		}
		last = seq
	}
	return last
}

// read returns all events above after.
func (b *bench) read(s journal.Stream, after uint64) []journal.Entry {
	b.Helper()
	return b.readSome(s, after, 1<<30)
}

// readSome returns n events above after, or as many as there are.
func (b *bench) readSome(s journal.Stream, after uint64, n int) (all []journal.Entry) {
	b.Helper()
	for len(all) < n {
		entries, err := b.j.Read(s, after, n-len(all), 1<<30)
		if err != nil {
			b.Fatalf("Read: %v", err)
		}
		if len(entries) == 0 {
			break
		}
		all = append(all, entries...)
		after = entries[len(entries)-1].Seq
	}
	return all
}

// shrink waits until s has at most so many segments, which the journal may be
// deleting in the background.
func (b *bench) shrink(s journal.Stream, segments int) {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Second); b.j.Status(s).Segments > segments; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("Status = %+v, want %d segments", b.j.Status(s), segments)
		}
	}
}

func (b *bench) wantSeqs(s journal.Stream, after uint64, first, last uint64) {
	b.Helper()
	entries := b.read(s, after)
	if want := int(last + 1 - first); len(entries) != want {
		b.Fatalf("%d events of %s after %d, want %d to %d", len(entries), s, after, first, last)
	}
	for i, e := range entries {
		if e.Seq != first+uint64(i) {
			b.Fatalf("event %d of %s at place %d, want %d", e.Seq, s, i, first+uint64(i))
		}
	}
}

func ordered(t *testing.T, b *bench) {
	sizes := []int{0, 1, 5, 100, 1999, 2000, 70_000, journal.MaxPayload}
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		for i := range 40 {
			payload := bytes.Repeat([]byte{byte(i)}, sizes[i%len(sizes)])
			seq, err := b.j.Append(ctx, s, uint64(1000+i), payload)
			if err != nil || seq != uint64(i+1) {
				t.Fatalf("Append %d = %d, %v", i, seq, err)
			}
			if i%7 == 0 {
				b.reopen()
			}
		}
		b.reopen()
		entries := b.read(s, 0)
		if len(entries) != 40 {
			t.Fatalf("%d events, want 40", len(entries))
		}
		for i, e := range entries {
			want := bytes.Repeat([]byte{byte(i)}, sizes[i%len(sizes)])
			if e.Seq != uint64(i+1) || e.Order != uint64(1000+i) || !bytes.Equal(e.Payload, want) {
				t.Fatalf("event %d is %d, order number %d, %d bytes", i+1, e.Seq, e.Order, len(e.Payload))
			}
		}
		if got := b.j.LastOrder(); got != 1039 {
			t.Errorf("LastOrder = %d, want 1039", got)
		}
	}
}

func streams(t *testing.T, b *bench) {
	b.append(journal.Pushes, 3)
	b.append(journal.Pulls, 5)
	b.reopen()
	b.wantSeqs(journal.Pushes, 0, 1, 3)
	b.wantSeqs(journal.Pulls, 0, 1, 5)
	if st := b.j.Status(journal.Pulls); st.First != 1 || st.Last != 5 || st.Bytes == 0 || st.Segments != 1 {
		t.Errorf("Status = %+v", st)
	}
}

func intents(t *testing.T, b *bench) {
	begin := func(payload string) journal.Intent {
		in, err := b.j.Begin(ctx, 77, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	done, dropped, open, _ := begin("done"), begin("dropped"), begin("open"), begin("also open")
	if seq, err := b.j.Complete(ctx, done, 78, []byte("event")); seq != 1 || err != nil {
		t.Fatalf("Complete = %d, %v", seq, err)
	}
	if _, err := b.j.Complete(ctx, done, 78, []byte("event")); !errors.Is(err, journal.ErrNotOpen) {
		t.Errorf("second Complete: %v, want ErrNotOpen", err)
	}
	if err := b.j.Abandon(dropped); err != nil {
		t.Fatal(err)
	}
	if err := b.j.Abandon(dropped); err != nil {
		t.Errorf("second Abandon: %v", err)
	}
	if got := b.j.Unresolved(); len(got) != 0 {
		t.Errorf("%d intents of this process are unresolved", len(got))
	}
	_ = open
	for range 2 {
		b.reopen()
		got := b.j.Unresolved()
		if len(got) != 2 || string(got[0].Payload) != "open" || string(got[1].Payload) != "also open" || got[0].Order != 77 {
			t.Fatalf("Unresolved = %+v", got)
		}
	}
	got := b.j.Unresolved()
	if later := begin("later"); later == got[0].Intent || later == got[1].Intent {
		t.Fatal("an open intent's id was given again")
	}
	if seq, err := b.j.Complete(ctx, got[0].Intent, 79, []byte("second")); seq != 2 || err != nil {
		t.Fatalf("Complete = %d, %v", seq, err)
	}
	if err := b.j.Abandon(got[1].Intent); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	if got := b.j.Unresolved(); len(got) != 1 || string(got[0].Payload) != "later" {
		t.Errorf("Unresolved = %+v", got)
	}
	b.wantSeqs(journal.Pushes, 0, 1, 2)
}

func identity(t *testing.T, b *bench) {
	id, clock := b.j.ID(), b.j.ClockID()
	if len(id) != 16 || clock > 1023 {
		t.Errorf("ID %q, ClockID %d", id, clock)
	}
	b.append(journal.Pushes, 1)
	b.reopen()
	if b.j.ID() != id || b.j.ClockID() != clock {
		t.Errorf("ID %q, ClockID %d became %q, %d", id, clock, b.j.ID(), b.j.ClockID())
	}
	other := journal.Config{Dir: t.TempDir()}
	j, err := b.open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.ID() == id {
		t.Error("two directories share an id")
	}
}

func retention(t *testing.T, b *bench) {
	for _, name := range []string{"fast", "slow"} {
		if err := b.j.Register(journal.Pushes, name); err != nil {
			t.Fatal(err)
		}
	}
	last := b.append(journal.Pushes, 200)
	b.wantSeqs(journal.Pushes, 0, 1, last)
	before := b.j.Status(journal.Pushes).Segments
	if before < 4 {
		t.Fatalf("%d segments are too few for this test", before)
	}
	set := func(name string, seq uint64) {
		if err := b.j.SetCursor(journal.Pushes, name, seq); err != nil {
			t.Fatal(err)
		}
	}
	set("fast", last)
	if got := b.j.Status(journal.Pushes).Segments; got != before {
		t.Fatalf("%d of %d segments left though a reader has not passed one", got, before)
	}
	set("slow", 150)
	b.reopen()
	st := b.j.Status(journal.Pushes)
	if st.Segments >= before || st.First > 151 {
		t.Fatalf("Status = %+v with the slowest reader at 150", st)
	}
	b.wantSeqs(journal.Pushes, 150, 151, last)
	b.wantSeqs(journal.Pushes, 0, st.First, last)
	set("slow", last)
	set("slow", 10)
	if got := b.j.Cursor(journal.Pushes, "slow"); got != last {
		t.Errorf("a cursor went back to %d", got)
	}
	b.reopen()
	if st := b.j.Status(journal.Pushes); st.Segments != 1 || st.Last != last {
		t.Errorf("Status = %+v with every event read", st)
	}
	if got := b.j.Cursor(journal.Pushes, "slow"); got != last {
		t.Errorf("Cursor = %d, want %d", got, last)
	}
	if seq := b.append(journal.Pushes, 1); seq != last+1 {
		t.Errorf("event %d follows event %d", seq, last)
	}
	if b.j.LastOrder() != 1 {
		t.Errorf("LastOrder = %d after retention", b.j.LastOrder())
	}
	if err := b.j.SetCursor(journal.Pushes, "slow", last+2); err == nil {
		t.Error("a cursor went beyond the last event")
	}
	if err := b.j.Forget(journal.Pushes, "slow"); err != nil || len(b.j.Cursors(journal.Pushes)) != 1 {
		t.Errorf("Forget: %v, %v", err, b.j.Cursors(journal.Pushes))
	}
}

// Open intents need only a few segments, however many there were.
func moved(t *testing.T, b *bench) {
	if err := b.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	var open []journal.Intent
	begun := 0
	begin := func() {
		in, err := b.j.Begin(ctx, 7, fmt.Append(nil, begun))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, in)
		begun++
	}
	pass := func() {
		last := b.append(journal.Pushes, 200)
		if err := b.j.SetCursor(journal.Pushes, "reader", last); err != nil {
			t.Fatal(err)
		}
		b.shrink(journal.Pushes, 4)
	}
	var settled uint64
	for round := range 6 {
		begin()
		begin()
		pass()
		begin()
		pass()
		if round%2 == 1 {
			b.reopen()
		}
		// The oldest, which was moved many times, ends.
		var err error
		if settled, err = b.j.Complete(ctx, open[0], 8, []byte("settled")); err != nil {
			t.Fatal(err)
		}
		if err := b.j.Abandon(open[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := b.j.Complete(ctx, open[1], 8, nil); !errors.Is(err, journal.ErrNotOpen) {
			t.Errorf("Complete of an abandoned one: %v, want ErrNotOpen", err)
		}
		open = open[2:]
	}
	if entries := b.read(journal.Pushes, settled-1); len(entries) != 1 || string(entries[0].Payload) != "settled" {
		t.Errorf("Read = %+v, want the event that was completed last", entries)
	}
	for range 3 {
		b.reopen()
		got := b.j.Unresolved()
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

// Open intents that take more than half of a segment are not moved on and on.
func manyOpen(t *testing.T, b *bench) {
	b.cfg.Limit = 20_000
	b.reopen()
	if err := b.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	const n = 400
	for i := range n {
		if _, err := b.j.Begin(ctx, 1, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	before := b.j.Status(journal.Pushes).Bytes
	for range 10 {
		last := b.append(journal.Pushes, 100)
		if err := b.j.SetCursor(journal.Pushes, "reader", last); err != nil {
			t.Fatal(err)
		}
	}
	b.reopen()
	if st := b.j.Status(journal.Pushes); st.Bytes > 3*before {
		t.Errorf("Status = %+v, with %d bytes of open intents", st, before)
	}
	got := b.j.Unresolved()
	if len(got) != n {
		t.Fatalf("%d intents are open, want %d", len(got), n)
	}
	for i, u := range got {
		if string(u.Payload) != fmt.Sprint(i) {
			t.Fatalf("intent %d is %q", i, u.Payload)
		}
	}
}

func leftOpen(t *testing.T, b *bench) {
	begin := func(payload string) journal.Intent {
		in, err := b.j.Begin(ctx, 5, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	done, gone, left, kept := begin("done"), begin("gone"), begin("left"), begin("kept")
	if _, err := b.j.Complete(ctx, done, 5, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.j.Abandon(gone); err != nil {
		t.Fatal(err)
	}
	for _, in := range []journal.Intent{left, done, gone, left} {
		b.j.LeaveOpen(in)
	}
	got := b.j.Unresolved()
	if len(got) != 1 || got[0].Intent != left || string(got[0].Payload) != "left" || got[0].Order != 5 {
		t.Fatalf("Unresolved = %+v, want the intent that was left open", got)
	}
	if seq, err := b.j.Complete(ctx, left, 5, nil); seq != 2 || err != nil {
		t.Errorf("Complete = %d, %v", seq, err)
	}
	if got := b.j.Unresolved(); len(got) != 0 {
		t.Errorf("Unresolved = %+v", got)
	}
	b.reopen()
	if got := b.j.Unresolved(); len(got) != 1 || got[0].Intent != kept {
		t.Errorf("Unresolved = %+v after a restart", got)
	}
}

// Abandoned intents do not count toward the limit of events.
func abandoned(t *testing.T, b *bench) {
	b.cfg.SegmentSize, b.cfg.Limit = 100_000, 300_000
	b.cfg.Dropped = func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
		t.Errorf("%s gives up %d to %d", cursor, first, last)
		return nil
	}
	b.reopen()
	if err := b.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	b.append(journal.Pushes, 1)
	for range 8 {
		in, err := b.j.Begin(ctx, 1, make([]byte, journal.MaxIntent))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.j.Abandon(in); err != nil {
			t.Fatal(err)
		}
	}
	last := b.append(journal.Pushes, 1)
	b.reopen()
	b.wantSeqs(journal.Pushes, 0, 1, last)

	// But what they take on disk is bounded, too.
	var mu sync.Mutex
	var dropped uint64
	b.cfg.Dropped = func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
		mu.Lock()
		defer mu.Unlock()
		dropped = last
		return nil
	}
	b.reopen()
	for range 40 {
		in, err := b.j.Begin(ctx, 1, make([]byte, journal.MaxIntent))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.j.Abandon(in); err != nil {
			t.Fatal(err)
		}
	}
	last = b.append(journal.Pushes, 1)
	for deadline := time.Now().Add(10 * time.Second); b.j.Status(journal.Pushes).Bytes > 600_000+2*165_000; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Status = %+v, want about 600000 bytes", b.j.Status(journal.Pushes))
		}
	}
	b.reopen()
	mu.Lock()
	defer mu.Unlock()
	b.wantSeqs(journal.Pushes, 0, dropped+1, last)
}

func tooMany(t *testing.T, b *bench) {
	b.cfg.SegmentSize = 1 << 20
	b.reopen()
	var open []journal.Intent
	var err error
	for err == nil {
		var in journal.Intent
		if in, err = b.j.Begin(ctx, 1, make([]byte, journal.MaxIntent)); err == nil {
			open = append(open, in)
		}
	}
	if !errors.Is(err, journal.ErrTooMany) || len(open) != 511 { // 512 of them, but for their heads
		t.Fatalf("Begin after %d: %v, want ErrTooMany", len(open), err)
	}
	if _, err := b.j.Append(ctx, journal.Pushes, 1, nil); err != nil {
		t.Error(err)
	}
	b.reopen()
	if _, err := b.j.Begin(ctx, 1, make([]byte, journal.MaxIntent)); !errors.Is(err, journal.ErrTooMany) {
		t.Errorf("Begin after a restart: %v, want ErrTooMany", err)
	}
	if err := b.j.Abandon(open[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.j.Begin(ctx, 1, make([]byte, journal.MaxIntent)); err != nil {
		t.Errorf("Begin with room: %v", err)
	}
}

// The limit drops no events that a reader has passed.
func passed(t *testing.T, b *bench) {
	b.cfg.Limit = 8000
	b.cfg.Dropped = func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
		t.Errorf("%s gives up %d to %d", cursor, first, last)
		return nil
	}
	b.reopen()
	for _, name := range []string{"own", "elsewhere"} {
		if err := b.j.Register(journal.Pulls, name); err != nil {
			t.Fatal(err)
		}
	}
	var last uint64
	for range 60 {
		last = b.append(journal.Pulls, 10)
		b.read(journal.Pulls, last-1)
		if err := b.j.SetCursor(journal.Pulls, "own", last); err != nil {
			t.Fatal(err)
		}
		if err := b.j.SetCursorLazily(journal.Pulls, "elsewhere", last); err != nil {
			t.Fatal(err)
		}
		b.shrink(journal.Pulls, 2)
	}
	if err := b.j.SetCursorLazily(journal.Pulls, "elsewhere", last+1); err == nil {
		t.Error("a reader has passed what is not there")
	}
	// Also where no other cursor moves.
	if err := b.j.Forget(journal.Pulls, "own"); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		last = b.append(journal.Pulls, 10)
		b.read(journal.Pulls, last-1)
		if err := b.j.SetCursorLazily(journal.Pulls, "elsewhere", last); err != nil {
			t.Fatal(err)
		}
		b.shrink(journal.Pulls, 2)
	}
	first := b.j.Status(journal.Pulls).First
	b.reopen()
	if got := b.j.Cursor(journal.Pulls, "elsewhere"); got+1 < first || got > last {
		t.Errorf("the cursor is at %d of %d, and the first event is %d", got, last, first)
	}
}

func limit(t *testing.T, b *bench) {
	type drop struct {
		cursor      string
		first, last uint64
	}
	var mu sync.Mutex
	var drops []drop
	refuse := true
	b.cfg.Limit = 8000
	b.cfg.Dropped = func(s journal.Stream, cursor string, first, last uint64, events iter.Seq2[journal.Entry, error]) error {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			return errors.New("not now")
		}
		seq := first
		for e, err := range events {
			if errors.Is(err, journal.ErrClosed) {
				return err
			}
			if err != nil || e.Seq != seq || string(e.Payload) != "event" {
				t.Errorf("dropped event %d is %+v, %v", seq, e, err)
			}
			seq++
		}
		if seq != last+1 {
			t.Errorf("dropped %d to %d, and %d could be read", first, last, seq-first)
		}
		drops = append(drops, drop{cursor, first, last})
		return nil
	}
	b.reopen()
	for _, name := range []string{"dead", "lively"} {
		if err := b.j.Register(journal.Pulls, name); err != nil {
			t.Fatal(err)
		}
	}
	last := b.append(journal.Pulls, 300)
	b.wantSeqs(journal.Pulls, 0, 1, last) // refused: all is still there
	if err := b.j.SetCursor(journal.Pulls, "lively", last); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	refuse = false
	mu.Unlock()
	last = b.append(journal.Pulls, 300)
	for deadline := time.Now().Add(10 * time.Second); b.j.Status(journal.Pulls).Bytes > 8000+2*2100; {
		if time.Now().After(deadline) {
			t.Fatalf("Status = %+v, want about 8000 bytes", b.j.Status(journal.Pulls))
		}
		time.Sleep(time.Millisecond)
	}
	mu.Lock()
	refuse = true // so that the journal as it is reopened gives up no more
	mu.Unlock()
	b.reopen() // the background work is done then
	mu.Lock()
	defer mu.Unlock()
	next := uint64(1)
	for _, d := range drops {
		if d.cursor != "dead" {
			continue
		}
		if d.first != next || d.last < d.first {
			t.Fatalf("dropped %d to %d, want from %d on", d.first, d.last, next)
		}
		next = d.last + 1
	}
	if next == 1 {
		t.Fatal("nothing was dropped")
	}
	if got := b.j.Cursor(journal.Pulls, "dead"); got != next-1 {
		t.Errorf("the cursor is at %d, dropped through %d", got, next-1)
	}
	// Close may come between giving a segment up and deleting it.
	if st := b.j.Status(journal.Pulls); st.Bytes > 8000+2*2100 || st.First > next {
		t.Errorf("Status = %+v, want from %d at most and about 8000 bytes", st, next)
	}
	b.wantSeqs(journal.Pulls, next-1, next, last)
}

func reads(t *testing.T, b *bench) {
	last := b.append(journal.Pulls, 300)
	for _, reopen := range []bool{false, true} {
		if reopen {
			b.reopen()
		}
		for after := uint64(0); after <= last+1; after += 13 {
			want := min(7, int(max(int64(last)-int64(after), 0)))
			entries := b.readSome(journal.Pulls, after, 7)
			if len(entries) != want {
				t.Fatalf("Read after %d: %d events, want %d", after, len(entries), want)
			}
			if want > 0 && entries[0].Seq != after+1 {
				t.Fatalf("Read after %d begins with %d", after, entries[0].Seq)
			}
		}
		// The payloads have 5 bytes each; the event that reaches the bound is in.
		entries, err := b.j.Read(journal.Pulls, 0, 100, 12)
		if err != nil || len(entries) != 3 {
			t.Errorf("Read of 12 bytes: %d events, %v", len(entries), err)
		}
		// Many readers, each in order, more than any cache holds.
		cursors := make([]uint64, 20)
		for range 10 {
			for i := range cursors {
				if _, ok := b.j.OrderAfter(journal.Pulls, cursors[i]); !ok {
					t.Fatalf("OrderAfter after %d: none", cursors[i])
				}
				entries := b.readSome(journal.Pulls, cursors[i], 10+i%3)
				if len(entries) != 10+i%3 || entries[0].Seq != cursors[i]+1 {
					t.Fatalf("reader %d after %d: %d events", i, cursors[i], len(entries))
				}
				cursors[i] = entries[len(entries)-1].Seq
			}
		}
	}
	if _, ok := b.j.OrderAfter(journal.Pulls, last); ok {
		t.Error("OrderAfter behind the last event")
	}
	if order, ok := b.j.OrderAfter(journal.Pulls, 100); !ok || order != 1 {
		t.Errorf("OrderAfter = %d, %v", order, ok)
	}
}

func waiting(t *testing.T, b *bench) {
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := b.j.Wait(short, journal.Pulls, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v, want the context's error", err)
	}
	woken := make(chan error)
	go func() { woken <- b.j.Wait(ctx, journal.Pulls, 1) }()
	b.append(journal.Pulls, 2)
	if err := <-woken; err != nil {
		t.Errorf("Wait: %v", err)
	}
	j := b.j
	go func() { woken <- j.Wait(ctx, journal.Pulls, 2) }()
	b.reopen()
	if err := <-woken; err != nil && !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Wait: %v, want ErrClosed", err)
	}
	if err := b.j.Wait(ctx, journal.Pulls, 1); err != nil {
		t.Errorf("Wait for what is there: %v", err)
	}
}

func together(t *testing.T, b *bench) {
	const writers, each = 8, 60
	if err := b.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	numbers := map[uint64]string{}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprint(w, " ", i)
				in, err := b.j.Begin(ctx, 1, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if i%5 == 0 {
					if err := b.j.Abandon(in); err != nil {
						t.Error(err)
					}
					continue
				}
				seq, err := b.j.Complete(ctx, in, 1, []byte(name))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				numbers[seq] = name
				mu.Unlock()
			}
		})
	}
	const want = writers * each * 4 / 5
	got := map[uint64]string{}
	for at := uint64(0); at < want && !t.Failed(); {
		if err := b.j.Wait(ctx, journal.Pushes, at); err != nil {
			t.Fatal(err)
		}
		entries, err := b.j.Read(journal.Pushes, at, 9, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Seq != at+1 {
				t.Fatalf("event %d follows %d", e.Seq, at)
			}
			at = e.Seq
			got[at] = string(e.Payload)
		}
		if err := b.j.SetCursor(journal.Pushes, "reader", at); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	for seq, name := range numbers {
		if got[seq] != name {
			t.Fatalf("event %d was read as %q, want %q", seq, got[seq], name)
		}
	}
	if len(got) != want || len(numbers) != want {
		t.Errorf("%d events written, %d read, want %d", len(numbers), len(got), want)
	}
	b.reopen()
	if got := b.j.Unresolved(); len(got) != 0 {
		t.Errorf("%d intents are open", len(got))
	}
}

func arguments(t *testing.T, b *bench) {
	large := make([]byte, journal.MaxPayload+1)
	if _, err := b.j.Append(ctx, journal.Pulls, 1, large); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("Append: %v, want ErrTooLarge", err)
	}
	if _, err := b.j.Begin(ctx, 1, large[:journal.MaxIntent+1]); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("Begin: %v, want ErrTooLarge", err)
	}
	in, err := b.j.Begin(ctx, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.j.Complete(ctx, in, 1, large); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("Complete: %v, want ErrTooLarge", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.j.Complete(gone, in, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Complete: %v, want the context's error", err)
	}
	if seq, err := b.j.Complete(ctx, in, 1, nil); seq != 1 || err != nil {
		t.Errorf("Complete after refused ones = %d, %v", seq, err)
	}
	for range 2 {
		if err := b.j.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, err1 := b.j.Append(ctx, journal.Pulls, 1, nil)
	_, err2 := b.j.Begin(ctx, 1, nil)
	_, err3 := b.j.Complete(ctx, in, 1, nil)
	_, err4 := b.j.Read(journal.Pulls, 0, 1, 1)
	for i, err := range []error{err1, err2, err3, err4, b.j.Abandon(in), b.j.Wait(ctx, journal.Pulls, 0),
		b.j.SetCursor(journal.Pulls, "reader", 0), b.j.Register(journal.Pulls, "reader"),
		b.j.SetCursorLazily(journal.Pulls, "reader", 0)} {
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("call %d after Close: %v, want ErrClosed", i, err)
		}
	}
}

func behind(t *testing.T, b *bench) {
	b.append(journal.Pulls, 5)
	id := b.j.ID()
	if err := b.j.AdvanceTo(journal.Pulls, 5); err != nil || b.j.ID() != id {
		t.Fatalf("AdvanceTo to the last event: %v, id %s became %s", err, id, b.j.ID())
	}
	if err := b.j.AdvanceTo(journal.Pulls, 9); err != nil || b.j.ID() == id {
		t.Fatalf("AdvanceTo beyond it: %v, id is still %s", err, id)
	}
	id = b.j.ID()
	for range 2 { // nothing is appended in between
		b.reopen()
		if err := b.j.AdvanceTo(journal.Pulls, 9); err != nil || b.j.ID() != id {
			t.Fatalf("opened again: %v, id %s became %s", err, id, b.j.ID())
		}
	}
	if seq := b.append(journal.Pulls, 1); seq != 10 {
		t.Errorf("event %d follows a reader at 9", seq)
	}
	b.reopen()
	if b.j.ID() != id {
		t.Errorf("id %s became %s without reason", id, b.j.ID())
	}
	if entries := b.read(journal.Pulls, 4); len(entries) != 2 || entries[0].Seq != 5 || entries[1].Seq != 10 {
		t.Errorf("Read = %+v, want events 5 and 10", entries)
	}
}
