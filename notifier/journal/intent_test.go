package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestCrashWhileMoving moves intents from segment to segment and opens a copy of the
// disk from before each operation: as a kill, a write torn at any byte or a power cut
// leaves it. Each open intent must be open once, and no ended one.
func TestCrashWhileMoving(t *testing.T) {
	t.Parallel()
	h := &movingHistory{disk: journaltest.NewDisk(), r: rand.New(rand.NewPCG(1, 2)), open: map[string]bool{}, ended: map[string]bool{}}
	j := open(t, h.disk)
	if err := j.Register(journal.Pushes, "r"); err != nil {
		t.Fatal(err)
	}
	h.disk.Watch(h.copyDisk)
	h.run(t, j)
	journaltest.AwaitSize(t, j, journal.Pushes, 3, 0)
	h.disk.Watch(nil)
	if st := j.Status(journal.Pushes); st.First < 20 || len(h.open) != 3 || len(h.ended) != 3 {
		t.Fatalf("Status = %+v, open %v, ended %v; want deleted segments and three intents of each kind", st, h.open, h.ended)
	}
	for _, c := range h.copies {
		c.check(t)
		if t.Failed() {
			return
		}
	}
}

// A movingHistory is a history of pushes in which intents stay open over many
// segments, with copies of the disk.
type movingHistory struct {
	disk *journaltest.Disk
	r    *rand.Rand

	mu     sync.Mutex      // the journal also works in the background
	open   map[string]bool // payloads of open intents that are durable
	ended  map[string]bool // payloads of intents whose end is durable
	last   uint64          // durable event
	copies []crashedDisk
}

// A crashedDisk is a copy of the disk, with the intents and events that it must have.
type crashedDisk struct {
	disk        *journaltest.Disk
	open, ended map[string]bool
	last        uint64
	how         string
}

// copyDisk copies the disk before an operation.
func (h *movingHistory) copyDisk(op journaltest.Op, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	add := func(d *journaltest.Disk, how string, args ...any) {
		h.copies = append(h.copies, crashedDisk{d, maps.Clone(h.open), maps.Clone(h.ended), h.last, fmt.Sprintf(how, args...)})
	}
	add(h.disk.Kill(), "kill before %s %s", op, name)
	add(h.disk.PowerCut(nil), "power cut before %s %s", op, name)
	add(h.disk.PowerCut(h.r), "torn power cut before %s %s", op, name)
	if op != journaltest.Sync {
		return
	}
	killed := h.disk.Kill()
	raw := killed.Bytes(name)
	for cut := killed.Durable(name); cut < len(bytes.TrimRight(raw, "\x00")); cut++ {
		torn := h.disk.Kill()
		torn.Put(name, raw[:cut])
		add(torn, "kill in a write, %d bytes of %s are left", cut, name)
	}
}

// run begins an intent before every ten pushes, and completes it after it has moved.
func (h *movingHistory) run(t *testing.T, j *journal.Journal) {
	intents := map[string]journal.Intent{}
	for i := range 60 {
		switch name := fmt.Sprint("intent ", i); i % 10 {
		case 0:
			in, err := j.Begin(ctx, 1, []byte(name))
			if err != nil {
				t.Fatal(err)
			}
			intents[name] = in
		case 7:
			moved := fmt.Sprint("intent ", i-37)
			if in, ok := intents[moved]; ok {
				h.complete(t, j, in, moved)
				delete(intents, moved)
			}
		default:
			h.push(t, j, intents)
			if i%3 == 0 {
				if err := j.SetCursor(journal.Pushes, "r", h.last); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func (h *movingHistory) complete(t *testing.T, j *journal.Journal, in journal.Intent, name string) {
	t.Helper()
	h.mu.Lock()
	delete(h.open, name) // until Complete returns it may be open or ended
	h.mu.Unlock()
	seq, err := j.Complete(ctx, in, 1, []byte(name))
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.ended[name] = seq, true
}

// push appends an event, with which all intents are durable.
func (h *movingHistory) push(t *testing.T, j *journal.Journal, intents map[string]journal.Intent) {
	t.Helper()
	seq, err := j.Append(ctx, journal.Pushes, 1, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = seq
	for name := range intents {
		h.open[name] = true
	}
}

func (c crashedDisk) check(t *testing.T) {
	j := open(t, c.disk)
	defer j.Close()
	found := map[string]bool{}
	for _, u := range j.Unresolved() {
		name := string(u.Payload)
		if found[name] || c.ended[name] {
			t.Errorf("%s: %s is open twice or again", c.how, name)
		}
		found[name] = true
	}
	for name := range c.open {
		if !found[name] {
			t.Errorf("%s: %s is missing", c.how, name)
		}
	}
	if st := j.Status(journal.Pushes); st.Last < c.last {
		t.Errorf("%s: the last event is %d, want %d", c.how, st.Last, c.last)
	}
}

// Intents of earlier versions, which may exceed MaxIntent, are moved.
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
			t.Errorf("Status = %+v with %d events read, want the open intent only", st, last)
		}
		if got := j.Unresolved(); len(got) != 1 || got[0].Intent != in || got[0].Order != 7 || !bytes.Equal(got[0].Payload, large) {
			t.Fatalf("%d intents are open, or the intent has changed", len(got))
		}
		j.Close()
	}
}

// An abandonment that cannot be written on a full disk is written by the next
// successful append. Until then the intent counts as abandoned and does not prevent
// the deletion of segments.
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
		t.Fatalf("Unresolved = %+v after a kill, want three: nothing could be written", got)
	}
	disk.Heal()
	add(t, j, journal.Pushes, 1)
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 2 {
		t.Errorf("Unresolved = %+v after a kill, want two intents", got)
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
	journaltest.AwaitSize(t, j, journal.Pushes, 1, 0)
}
