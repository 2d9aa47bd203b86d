package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	add(t, j, journal.Pulls, 3)
	add(t, j, journal.Pushes, 3)
	disk.Inject(journaltest.Fault{Op: journaltest.Write, Outcome: journaltest.Half, Err: syscall.ENOSPC, Times: 1 << 30})
	for range 3 {
		_, err1 := j.Append(ctx, journal.Pulls, 1, []byte("lost"))
		_, err2 := j.Append(ctx, journal.Pushes, 1, []byte("lost"))
		_, err3 := j.Begin(ctx, 1, []byte("lost"))
		for _, err := range []error{err1, err2, err3, j.SetCursor(journal.Pushes, "r", 1)} {
			if !errors.Is(err, journal.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("got %v, want ErrFull and ENOSPC", err)
			}
		}
	}
	if got := seqs(t, j, journal.Pulls); !slices.Equal(got, upTo(3)) {
		t.Errorf("on the full disk: events %v, want 1 to 3", got)
	}
	disk.Inject(journaltest.Fault{Op: journaltest.Truncate, Err: syscall.EIO, Times: 1 << 30})
	for _, later := range []*journaltest.Disk{disk.Kill(), disk.PowerCut(nil)} {
		for _, s := range streams {
			if got := seqs(t, open(t, later), s); !slices.Equal(got, upTo(3)) {
				t.Errorf("after a crash on the full disk: events %v of %s, want 1 to 3", got, s)
			}
		}
	}
	disk.Heal()
	add(t, j, journal.Pulls, 1)
	add(t, j, journal.Pushes, 1)
	for _, s := range streams {
		if got := seqs(t, open(t, disk.Kill()), s); !slices.Equal(got, upTo(4)) {
			t.Errorf("with space again: events %v of %s, want 1 to 4", got, s)
		}
	}
}

// TestFullThenSpace fills the disk at each position of a history of pushes that are
// completed, abandoned and left open, while the journal deletes segments. Once there is
// space again, everything works: each push whose intent was accepted is abandoned, or
// its event is read exactly once.
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
		t.Run(fmt.Sprintf("%s %s %s", c.op, c.outcome, c.name), func(t *testing.T) {
			t.Parallel()
			for i := range race.Some(120) {
				skip, times := i/2, []int{1, 1 << 30}[i%2]
				h := fullHistory{t: t, disk: journaltest.NewDisk(), read: map[uint64]string{}, times: map[string]int{}, want: map[string]int{}}
				h.run(journaltest.Fault{Op: c.op, Outcome: c.outcome, Name: c.name, Err: syscall.ENOSPC, Skip: skip, Times: times})
				if t.Failed() {
					t.Fatalf("disk full after %d operations, for %d operations", skip, times)
				}
			}
		})
	}
}

type fullHistory struct {
	t    *testing.T
	disk *journaltest.Disk
	j    *journal.Journal
	n    int // pushes so far

	mu    sync.Mutex
	read  map[uint64]string // payloads of the events that were read or dropped, by number
	times map[string]int    // how many of them have a payload
	want  map[string]int    // how many must have it
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
	for i := range 2 { // these stay open
		if _, err := h.j.Begin(ctx, 1, fmt.Appendf(nil, "open %d", i)); err != nil {
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
			t.Errorf("Complete of an intent that was left open: %v", err)
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
	journaltest.AwaitSize(t, h.j, journal.Pushes, 3, fullLimit)
	after := open(t, h.disk.Kill())
	defer after.Close()
	if got := after.Unresolved(); len(got) != 2 || string(got[0].Payload) != "open 0" || string(got[1].Payload) != "open 1" {
		t.Errorf("Unresolved = %+v after a kill", got)
	}
}

// rounds makes n pushes. Every fourth is abandoned, and after every third the reader
// reads. Errors are expected unless the disk is healthy.
func (h *fullHistory) rounds(n int, healthy bool) {
	for i := range n {
		h.n++
		payload := fmt.Sprintf("push %d with a longer payload", h.n)
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

// advance reads new events and moves the cursor.
func (h *fullHistory) advance(healthy bool) error {
	entries, err := h.j.Read(journal.Pushes, h.j.Cursor(journal.Pushes, "r"), 1000, 1<<20)
	if err == nil && len(entries) > 0 {
		h.add(entries...)
		err = h.j.SetCursor(journal.Pushes, "r", entries[len(entries)-1].Seq)
	}
	if err != nil && healthy {
		h.t.Error(err)
	}
	return err
}

func (h *fullHistory) add(entries ...journal.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		old, again := h.read[e.Seq]
		if again && old != string(e.Payload) {
			h.t.Errorf("event %d was %q and is %q now", e.Seq, old, e.Payload)
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
		h.add(e)
	}
	return nil
}

// diskOfEvents returns a disk with 40 events in each stream and an open intent, after a
// kill.
func diskOfEvents(t *testing.T) *journaltest.Disk {
	t.Helper()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	if _, err := j.Begin(ctx, 1, []byte("open")); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		add(t, j, s, 40)
		if err := j.Register(s, "r"); err != nil {
			t.Fatal(err)
		}
	}
	return disk.Kill()
}

// withPassedSegments returns a copy of the disk whose segments could not be removed,
// although the cursors have passed them.
func withPassedSegments(t *testing.T, disk *journaltest.Disk) *journaltest.Disk {
	t.Helper()
	disk = disk.Kill()
	disk.Inject(journaltest.Fault{Op: journaltest.Remove, Err: syscall.EIO, Times: 1 << 30})
	j := open(t, disk)
	for _, s := range streams {
		if err := j.SetCursor(s, "r", 40); err != nil {
			t.Fatal(err)
		}
	}
	return disk.Kill()
}

// fill makes operations fail, as a full disk does.
func fill(disk *journaltest.Disk, ops ...journaltest.Op) {
	for _, op := range ops {
		disk.Inject(journaltest.Fault{Op: op, Outcome: journaltest.Half, Err: syscall.ENOSPC, Times: 1 << 30})
	}
}

// Open on a full disk succeeds if nothing has to be written. Segments can be deleted.
func TestOpenOnFullDisk(t *testing.T) {
	t.Parallel()
	clean := diskOfEvents(t)
	for name, test := range map[string]struct {
		disk        *journaltest.Disk
		maxSegments int
	}{
		"clean":              {clean, 40},
		"segments to delete": {withPassedSegments(t, clean), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fill(test.disk, journaltest.Write)
			j := open(t, test.disk)
			for _, s := range streams {
				if got := seqs(t, j, s); len(got) == 0 || got[len(got)-1] != 40 {
					t.Errorf("events %v of %s, want up to 40", got, s)
				}
			}
			if got := j.Unresolved(); len(got) != 1 {
				t.Errorf("Unresolved = %+v, want one intent", got)
			}
			if st := j.Status(journal.Pulls); st.Segments > test.maxSegments {
				t.Errorf("Status = %+v, want at most %d segments", st, test.maxSegments)
			}
		})
	}
}

// If Open has to write on a full disk, it returns ErrFull, and succeeds once there is
// space. Only a torn tail is changed.
func TestOpenNeedsSpace(t *testing.T) {
	t.Parallel()
	clean := diskOfEvents(t)
	torn, behind := clean.Kill(), clean.Kill()
	name := lastSegment(torn, journal.Pushes)
	raw := bytes.TrimRight(torn.Bytes(name), "\x00")
	torn.Put(name, raw[:len(raw)-len("load")])
	for _, s := range streams {
		if err := behind.Remove(lastSegment(behind, s)); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		disk *journaltest.Disk
		ops  []journaltest.Op
		last uint64 // push that must be left
	}{
		"new":             {journaltest.NewDisk(), []journaltest.Op{journaltest.Write}, 0},
		"torn":            {torn, []journaltest.Op{journaltest.Truncate, journaltest.Write}, 39},
		"behind a reader": {behind, []journaltest.Op{journaltest.Write}, 35},
		"not fsynced":     {clean, []journaltest.Op{journaltest.Sync}, 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := test.disk
			before := contents(disk)
			fill(disk, test.ops...)
			if _, err := journal.Open(journal.Config{Dir: "j", FS: disk, SegmentSize: 600}); !errors.Is(err, journal.ErrFull) {
				t.Fatalf("Open: %v, want ErrFull", err)
			}
			if after := contents(disk); disk != torn && !maps.Equal(before, after) {
				t.Errorf("Open changed the folder from %q to %q", before, after)
			}
			disk.Heal()
			j := open(t, disk)
			if st := j.Status(journal.Pushes); st.Last < test.last {
				t.Errorf("with space again: Status = %+v, want Last %d", st, test.last)
			}
			add(t, j, journal.Pushes, 1)
		})
	}
}

// contents returns the contents of all files by name.
func contents(disk *journaltest.Disk) map[string]string {
	files := map[string]string{}
	for _, name := range disk.Files() {
		files[name] = string(disk.Bytes(name))
	}
	return files
}
