package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestFullThenSpace lets the disk become full at each place of a history of
// pushes that are completed, abandoned and released, in a journal that has to
// delete segments. Once there is space again all goes on: every push whose
// intent was accepted is either abandoned, or its event is read exactly once.
func TestFullThenSpace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		op      journaltest.Op
		outcome journaltest.Outcome
		name    string
	}{
		{journaltest.Write, journaltest.NotApplied, ".seg"},
		{journaltest.Write, journaltest.Half, ""},
		{journaltest.Write, journaltest.Applied, ""},
		{journaltest.Sync, journaltest.NotApplied, ""},
		{journaltest.Sync, journaltest.Half, ".seg"},
		{journaltest.Sync, journaltest.Applied, ""},
		{journaltest.Rename, journaltest.NotApplied, ""},
		{journaltest.Rename, journaltest.Applied, ""},
		{journaltest.SyncDir, journaltest.NotApplied, ""},
		{journaltest.SyncDir, journaltest.Applied, ""},
		{journaltest.Remove, journaltest.NotApplied, ""},
	} {
		t.Run(fmt.Sprint(c.op, c.outcome, c.name), func(t *testing.T) {
			t.Parallel()
			for i := range 120 {
				skip, times := i/2, []int{1, 1 << 30}[i%2]
				h := fullHistory{t: t, disk: journaltest.NewDisk(), read: map[uint64]string{}, times: map[string]int{}, want: map[string]int{}}
				h.run(journaltest.Fault{Op: c.op, Outcome: c.outcome, Name: c.name, Err: syscall.ENOSPC, Skip: skip, Times: times})
				if t.Failed() {
					t.Fatalf("with %d operations before the disk is full for %d", skip, times)
				}
			}
		})
	}
}

type fullHistory struct {
	t    *testing.T
	disk *journaltest.Disk
	j    *journal.Journal
	n    int

	mu    sync.Mutex
	read  map[uint64]string // events by number, read by the reader or given up
	times map[string]int    // events by payload
	want  map[string]int    // how many there have to be
}

const fullLimit = 3000

func (h *fullHistory) run(f journaltest.Fault) {
	t := h.t
	var err error
	h.j, err = journal.Open(journal.Config{Dir: "j", FS: h.disk, SegmentSize: 600, Limit: fullLimit, Dropped: h.dropped})
	if err != nil {
		t.Fatal(err)
	}
	defer h.j.Close()
	if err := h.j.Register(journal.Pushes, "r"); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // open from the beginning to the end
		if _, err := h.j.Begin(ctx, 1, fmt.Appendf(nil, "always %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	h.rounds(10, false)
	h.disk.Inject(f)
	h.rounds(25, false)
	h.disk.Heal()
	h.rounds(20, true)
	for _, u := range h.j.Unresolved() {
		if _, err := h.j.Complete(ctx, u.Intent, u.Order, u.Payload); err != nil {
			t.Errorf("Complete of a released intent: %v", err)
		}
	}
	h.advance(true)
	h.mu.Lock()
	for payload, want := range h.want {
		if got := h.times[payload]; got != want {
			t.Errorf("%s: %d events, want %d", payload, got, want)
		}
	}
	h.mu.Unlock()
	small := func() bool { // others may be deleting still
		st := h.j.Status(journal.Pushes)
		return st.Segments <= 3 && st.Bytes <= fullLimit
	}
	for deadline := time.Now().Add(10 * time.Second); !small(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Status = %+v with every event read", h.j.Status(journal.Pushes))
		}
	}
	after := open(t, h.disk.Kill())
	defer after.Close()
	if got := after.Unresolved(); len(got) != 2 || string(got[0].Payload) != "always 0" || string(got[1].Payload) != "always 1" {
		t.Errorf("Unresolved = %+v after a kill", got)
	}
}

// rounds makes n pushes, of which one is abandoned and one not even begun, and
// lets the reader follow for half of the time.
func (h *fullHistory) rounds(n int, healthy bool) {
	for i := range n {
		h.n++
		payload := fmt.Sprintf("push %d with something to say", h.n)
		in, err := h.j.Begin(ctx, 1, []byte(payload))
		if err == nil && i%4 == 0 {
			h.want[payload] = 0
			err = h.j.Abandon(in)
		} else if err == nil {
			h.want[payload] = 1
			if _, err = h.j.Complete(ctx, in, 1, []byte(payload)); err != nil {
				h.j.LeaveOpen(in)
			}
		}
		if err == nil && i%3 == 0 {
			err = h.advance(false)
		}
		if err != nil && (healthy || !errors.Is(err, journal.ErrFull) && !strings.Contains(err.Error(), "the disk lost")) {
			h.t.Errorf("push %d: %v", h.n, err)
		}
	}
}

// advance reads what is new, and moves the cursor.
func (h *fullHistory) advance(healthy bool) error {
	entries, err := h.j.Read(journal.Pushes, h.j.Cursor(journal.Pushes, "r"), 1000, 1<<20)
	if err == nil && len(entries) > 0 {
		h.note(entries...)
		err = h.j.SetCursor(journal.Pushes, "r", entries[len(entries)-1].Seq)
	}
	if err != nil && healthy {
		h.t.Error(err)
	}
	return err
}

func (h *fullHistory) note(entries ...journal.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		old, again := h.read[e.Seq]
		if again && old != string(e.Payload) {
			h.t.Errorf("event %d was %q and is %q", e.Seq, old, e.Payload)
		}
		if !again {
			h.read[e.Seq] = string(e.Payload)
			h.times[string(e.Payload)]++
		}
	}
}

func (h *fullHistory) dropped(_ journal.Stream, _ string, _, _ uint64, events iter.Seq2[journal.Entry, error]) error {
	for e, err := range events {
		if err != nil {
			return err
		}
		h.note(e)
	}
	return nil
}

// TestLimitOnFullDisk has a reader that is dead while the disk is full: its
// oldest events are given up though its cursor can't be written.
func TestLimitOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	gone := uint64(0)
	j, err := journal.Open(journal.Config{Dir: "j", FS: disk, SegmentSize: 600, Limit: 3000,
		Dropped: func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
			if cursor != "dead" { // the other one, registered while a segment was being given up
				return nil
			}
			if first != gone+1 {
				t.Errorf("events %d to %d are given up after %d", first, last, gone)
			}
			gone = last
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Register(journal.Pushes, "dead"); err != nil {
		t.Fatal(err)
	}
	disk.Inject(journaltest.Fault{Op: journaltest.Write, Name: "journal.json", Err: syscall.ENOSPC, Times: 1 << 30})
	for range 300 {
		add(t, j, journal.Pushes, 1)
		for deadline := time.Now().Add(10 * time.Second); j.Status(journal.Pushes).Bytes > 3000+2*700; {
			if time.Now().After(deadline) {
				t.Fatalf("Status = %+v", j.Status(journal.Pushes))
			}
			time.Sleep(time.Millisecond)
		}
	}
	disk.Heal()
	if err := j.Register(journal.Pushes, "other"); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if got := j.Cursor(journal.Pushes, "dead"); got != gone || gone == 0 {
		t.Errorf("the cursor is at %d once it can be written, and %d were given up", got, gone)
	}
}

// TestLostEvent lets an fsync fail and the system drop what it was to keep:
// the push whose event that was is open again, and the abandoned one is not.
func TestLostEvent(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	var intents []journal.Intent
	for i := range 3 {
		in, err := j.Begin(ctx, 9, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		intents = append(intents, in)
	}
	add(t, j, journal.Pushes, 1)
	if err := j.Abandon(intents[1]); err != nil {
		t.Fatal(err)
	}
	disk.Inject(journaltest.Fault{Op: journaltest.Sync, Name: "pushes", Outcome: journaltest.Half, Err: syscall.EIO, Times: 1})
	if _, err := j.Complete(ctx, intents[0], 9, []byte("lost")); err == nil {
		t.Fatal("Complete worked; the test does not test")
	}
	j.LeaveOpen(intents[0])
	got := j.Unresolved()
	if len(got) != 1 || got[0].Intent != intents[0] || string(got[0].Payload) != "0" || got[0].Order != 9 {
		t.Fatalf("Unresolved = %+v, want the first", got)
	}
	add(t, j, journal.Pushes, 1)
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 2 || got[0].Intent != intents[0] || got[1].Intent != intents[2] {
		t.Errorf("Unresolved = %+v after a kill, want the first and the last", got)
	}
	if seq, err := j.Complete(ctx, got[0].Intent, 9, []byte("found")); err != nil || seq != 4 { // 2 was the lost one's
		t.Errorf("Complete = %d, %v", seq, err)
	}
}

// TestLostIntent is likewise for the record of an intent, which is written
// again at the latest before a segment is deleted.
func TestLostIntent(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	add(t, j, journal.Pushes, 1)
	in, err := j.Begin(ctx, 1, []byte("intent"))
	if err != nil {
		t.Fatal(err)
	}
	disk.Inject(journaltest.Fault{Op: journaltest.Sync, Name: "pushes", Outcome: journaltest.Half, Err: syscall.EIO, Times: 1})
	if _, err := j.Append(ctx, journal.Pushes, 1, nil); err == nil {
		t.Fatal("Append worked; the test does not test")
	}
	add(t, j, journal.Pushes, 20)
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 0 {
		t.Fatalf("Unresolved = %+v; the test does not test", got)
	}
	if err := j.SetCursor(journal.Pushes, "r", j.Status(journal.Pushes).Last); err != nil {
		t.Fatal(err)
	}
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 1 || got[0].Intent != in {
		t.Errorf("Unresolved = %+v after a kill, want the intent", got)
	}
	if _, err := j.Complete(ctx, in, 1, nil); err != nil {
		t.Error(err)
	}
}

// TestAbandonAgain abandons on a full disk. The next append that works makes up
// for it; until then the intent counts as abandoned and holds nothing back.
func TestAbandonAgain(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	var intents []journal.Intent
	for range 3 {
		in, err := j.Begin(ctx, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		intents = append(intents, in)
	}
	full := journaltest.Fault{Op: journaltest.Write, Name: ".seg", Err: syscall.ENOSPC, Times: 1 << 30}
	disk.Inject(full)
	for range 2 {
		if err := j.Abandon(intents[0]); !errors.Is(err, journal.ErrFull) && err != nil {
			t.Fatalf("Abandon: %v, want ErrFull", err)
		}
		if _, err := j.Complete(ctx, intents[0], 1, nil); !errors.Is(err, journal.ErrNotOpen) {
			t.Errorf("Complete of an abandoned intent: %v", err)
		}
		j.LeaveOpen(intents[0])
		if got := j.Unresolved(); len(got) != 0 {
			t.Errorf("Unresolved = %+v", got)
		}
	}
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 3 {
		t.Fatalf("Unresolved = %+v; the test does not test", got)
	}
	disk.Heal()
	add(t, j, journal.Pushes, 1)
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 2 {
		t.Errorf("Unresolved = %+v after a kill, want two", got)
	}

	if err := j.Abandon(intents[2]); err != nil {
		t.Fatal(err)
	}
	add(t, j, journal.Pushes, 20)
	disk.Inject(full)
	if err := j.Abandon(intents[1]); !errors.Is(err, journal.ErrFull) {
		t.Fatalf("Abandon: %v, want ErrFull", err)
	}
	if err := j.SetCursor(journal.Pushes, "r", j.Status(journal.Pushes).Last); err != nil {
		t.Fatal(err)
	}
	// What runs in the background may be at it.
	for deadline := time.Now().Add(10 * time.Second); j.Status(journal.Pushes).Segments != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Status = %+v: an abandoned intent holds segments on a full disk", j.Status(journal.Pushes))
		}
	}
}

// TestOpenOnFullDisk opens a folder on a disk that takes nothing more. It works
// if nothing has to be written; else it says so, and works when there is space.
func TestOpenOnFullDisk(t *testing.T) {
	t.Parallel()
	clean := journaltest.NewDisk()
	j := open(t, clean)
	if _, err := j.Begin(ctx, 1, []byte("open")); err != nil {
		t.Fatal(err)
	}
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		add(t, j, s, 40)
		if err := j.Register(s, "r"); err != nil {
			t.Fatal(err)
		}
	}
	passed := clean.Kill() // segments that can be deleted, of which one has an open intent
	passed.Inject(journaltest.Fault{Op: journaltest.Remove, Err: syscall.EIO, Times: 1 << 30})
	p := open(t, passed)
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		if err := p.SetCursor(s, "r", 40); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	p.Close()
	passed = passed.Kill()

	torn := clean.Kill()
	name := lastSegment(torn, journal.Pushes)
	raw := bytes.TrimRight(torn.Bytes(name), "\x00")
	torn.Put(name, raw[:len(raw)-len("load")])
	behind := clean.Kill()
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		if err := behind.Remove(lastSegment(behind, s)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		disk *journaltest.Disk
		ops  []journaltest.Op
		want error
		seen int
	}{
		{"clean", clean, []journaltest.Op{journaltest.Write}, nil, 40},
		{"to be deleted", passed, []journaltest.Op{journaltest.Write}, nil, 40},
		{"new", journaltest.NewDisk(), []journaltest.Op{journaltest.Write}, journal.ErrFull, 0},
		{"torn", torn, []journaltest.Op{journaltest.Truncate, journaltest.Write}, journal.ErrFull, 39},
		{"behind a reader", behind, []journaltest.Op{journaltest.Write}, journal.ErrFull, 35},
		{"not fsynced", clean, []journaltest.Op{journaltest.Sync}, journal.ErrFull, 40},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			disk := test.disk.Kill()
			var before []string
			for _, name := range disk.Files() {
				before = append(before, name+string(disk.Bytes(name)))
			}
			for _, op := range test.ops {
				disk.Inject(journaltest.Fault{Op: op, Outcome: journaltest.Half, Err: syscall.ENOSPC, Times: 1 << 30})
			}
			j, err := journal.Open(journal.Config{Dir: "j", FS: disk, SegmentSize: 600})
			if !errors.Is(err, test.want) {
				t.Fatalf("Open: %v, want %v", err, test.want)
			}
			if err == nil {
				defer j.Close()
				for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
					got := seqs(t, j, s)
					if len(got) == 0 || got[len(got)-1] != 40 {
						t.Errorf("on the full disk: events %v", got)
					}
				}
				if got := j.Unresolved(); len(got) != 1 {
					t.Errorf("on the full disk: Unresolved = %+v", got)
				}
				if st := j.Status(journal.Pulls); test.name == "to be deleted" && st.Segments != 1 {
					t.Errorf("on the full disk: Status = %+v, though to delete needs no space", st)
				}
				return
			}
			var after []string
			for _, name := range disk.Files() {
				after = append(after, name+string(disk.Bytes(name)))
			}
			if test.name != "torn" && fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("the folder was %q and is %q", before, after)
			}
			disk.Heal()
			j = open(t, disk)
			if st := j.Status(journal.Pushes); test.seen > 0 && int(st.Last) < test.seen {
				t.Errorf("with space again: Status = %+v, want %d", st, test.seen)
			}
			add(t, j, journal.Pushes, 1)
		})
	}
}

// TestLargePushes makes more pushes at a time than a batch has room for. They
// wait for each other.
func TestLargePushes(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j, err := journal.Open(journal.Config{Dir: "j", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	hang := make(chan struct{})
	disk.Inject(journaltest.Fault{Op: journaltest.Write, Name: "pushes", Skip: 1, Hang: hang, Times: 1})
	large := make([]byte, 37<<20/10)
	errs := make(chan error)
	const n = 16
	for range n {
		go func() {
			in, err := j.Begin(ctx, 1, nil)
			if err == nil {
				_, err = j.Complete(ctx, in, 1, large)
			}
			errs <- err
		}()
	}
	time.Sleep(20 * time.Millisecond) // they come while the disk is busy, most likely
	close(hang)
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if st := j.Status(journal.Pushes); st.Last != n {
		t.Errorf("Status = %+v", st)
	}
}

// TestLargePushesInMemory makes a disk hang under many large pushes: the
// journal holds two batches and nobody's bytes besides.
func TestLargePushesInMemory(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j, err := journal.Open(journal.Config{Dir: "j", FS: disk, Wait: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	hang := make(chan struct{})
	disk.Inject(journaltest.Fault{Op: journaltest.Write, Hang: hang, Times: 1})
	large := make([]byte, 3<<20)
	errs := make(chan error)
	const n = 30
	for range n {
		go func() {
			_, err := j.Append(ctx, journal.Pushes, 1, large)
			errs <- err
		}()
	}
	for range n - 1 {
		if err := <-errs; !errors.Is(err, journal.ErrSlow) {
			t.Errorf("Append: %v, want ErrSlow", err)
		}
	}
	gone, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := j.Append(gone, journal.Pushes, 1, large); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Append: %v, want the context's error", err)
	}
	close(hang)
	if err := <-errs; err != nil && !errors.Is(err, journal.ErrSlow) { // its write was the one that hung
		t.Error(err)
	}
	add(t, j, journal.Pushes, 1)
	if got := j.Status(journal.Pushes).Last; got > 2+2+1 {
		t.Errorf("%d events arrived, of which two batches of two can have been held", got)
	}
}

// TestOldIntents moves intents that are larger than new ones may be.
func TestOldIntents(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	large := bytes.Repeat([]byte("x"), 2*journal.MaxIntent)
	in, err := j.BeginOld(7, large)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	for range 3 {
		j = open(t, disk)
		for range 100 {
			if _, err := j.Append(ctx, journal.Pushes, 1, make([]byte, 10_000)); err != nil {
				t.Fatal(err)
			}
		}
		last := j.Status(journal.Pushes).Last
		if err := j.SetCursor(journal.Pushes, "r", last); err != nil {
			t.Fatal(err)
		}
		j.Close()
		j = open(t, disk)
		if st := j.Status(journal.Pushes); st.First < last || st.Bytes > 300_000 {
			t.Errorf("Status = %+v with %d events read", st, last)
		}
		if got := j.Unresolved(); len(got) != 1 || got[0].Intent != in || got[0].Order != 7 || !bytes.Equal(got[0].Payload, large) {
			t.Fatalf("%d intents are open, or not as they were", len(got))
		}
		j.Close()
	}
}
