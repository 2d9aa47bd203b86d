package journal_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestFaults injects one, two or five failures of each operation, applied or not,
// at each position of one history, and checks the events after a kill, a power cut
// and a Close.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		op       journaltest.Op
		outcomes []journaltest.Outcome
	}{
		{journaltest.Write, []journaltest.Outcome{journaltest.NotApplied, journaltest.Half, journaltest.Applied}},
		{journaltest.Sync, []journaltest.Outcome{journaltest.NotApplied, journaltest.Half, journaltest.Applied}},
		{journaltest.Rename, []journaltest.Outcome{journaltest.NotApplied, journaltest.Applied}},
		{journaltest.SyncDir, []journaltest.Outcome{journaltest.NotApplied, journaltest.Applied}},
		{journaltest.Open, []journaltest.Outcome{journaltest.NotApplied}},
		{journaltest.Remove, []journaltest.Outcome{journaltest.NotApplied, journaltest.Applied}},
	} {
		for _, outcome := range c.outcomes {
			for _, times := range []int{1, 2, 5} {
				t.Run(fmt.Sprintf("%s %s %d", c.op, outcome, times), func(t *testing.T) {
					t.Parallel()
					for skip := range race.Some(40) {
						h := history{t: t, disk: journaltest.NewDisk()}
						h.run(journaltest.Fault{Op: c.op, Outcome: outcome, Err: syscall.EIO, Skip: skip, Times: times})
					}
				})
			}
		}
	}
}

type history struct {
	t      *testing.T
	disk   *journaltest.Disk
	pushes []string // acknowledged
	pulls  []string // acknowledged
	read   []string // pulls that were read
	failed int      // appends that returned an error
}

func (h *history) run(f journaltest.Fault) {
	j := open(h.t, h.disk)
	h.disk.Inject(f)
	h.steps(j, 25)
	h.disk.Heal()
	failed := h.failed
	h.steps(j, 3)
	if h.failed > failed {
		h.t.Fatalf("%v: the journal did not recover", f)
	}
	lost := f.Op == journaltest.Sync && f.Outcome == journaltest.Half // the appends that wait for it fail
	if f.Times == 1 && h.failed > 0 && f.Op != journaltest.Open && !lost {
		h.t.Fatalf("%v: %d appends failed, although a second attempt would have succeeded", f, h.failed)
	}
	// An fsync that drops the data loses pulls that were not read.
	pulls := h.pulls
	if lost {
		pulls = h.read
	}
	h.check(f, "kill", h.disk.Kill(), pulls)
	h.check(f, "power cut", h.disk.PowerCut(nil), h.read)
	j.Close()
	h.check(f, "close", h.disk, pulls)
}

func (h *history) steps(j *journal.Journal, n int) {
	for i := range n {
		push := fmt.Sprintf("push %d", len(h.pushes)*1000+i+h.failed*100_000)
		in, err := j.Begin(ctx, 1, nil)
		if err == nil {
			_, err = j.Complete(ctx, in, 1, []byte(push))
		}
		if err == nil {
			h.pushes = append(h.pushes, push)
		} else {
			h.failed++
		}
		pull := fmt.Sprintf("pull %d", len(h.pulls)*1000+i+h.failed*100_000)
		if _, err := j.Append(ctx, journal.Pulls, 1, []byte(pull)); err == nil {
			h.pulls = append(h.pulls, pull)
		} else {
			h.failed++
		}
		if i%3 == 0 {
			entries, err := j.Read(journal.Pulls, j.Cursor(journal.Pulls, "r"), 2, 1<<20)
			for _, e := range entries {
				if !slices.Contains(h.read, string(e.Payload)) {
					h.read = append(h.read, string(e.Payload))
				}
			}
			if err == nil && len(entries) > 0 && i%2 == 0 {
				j.SetCursor(journal.Pulls, "r", entries[0].Seq) // after a failure, events are only read again
			}
		}
	}
}

func (h *history) check(f journaltest.Fault, how string, disk *journaltest.Disk, pulls []string) {
	h.t.Helper()
	j := open(h.t, disk)
	for s, want := range map[journal.Stream][]string{journal.Pushes: h.pushes, journal.Pulls: pulls} {
		entries, err := j.Read(s, 0, 1<<30, 1<<30)
		if err != nil {
			h.t.Fatalf("%v, %s: %v", f, how, err)
		}
		got := map[string]uint64{}
		for i, e := range entries {
			if i > 0 && e.Seq <= entries[i-1].Seq {
				h.t.Fatalf("%v, %s: event %d of %s follows %d", f, how, e.Seq, s, entries[i-1].Seq)
			}
			if old := got[string(e.Payload)]; old != 0 {
				h.t.Fatalf("%v, %s: events %d and %d of %s have the same payload", f, how, old, e.Seq, s)
			}
			got[string(e.Payload)] = e.Seq
		}
		passed := int(j.Cursor(s, "r")) // retention may have deleted these
		for i, payload := range want {
			if got[payload] == 0 && i >= passed {
				h.t.Fatalf("%v, %s: %q of %s is lost", f, how, payload, s)
			}
		}
	}
	j.Close()
}

// An fsync fails and the operating system drops the data. The intent whose event
// was in it is open again; the abandoned one is not.
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
		t.Fatal("Complete succeeded, want the error of the fsync")
	}
	j.LeaveOpen(intents[0])
	got := j.Unresolved()
	if len(got) != 1 || got[0].Intent != intents[0] || string(got[0].Payload) != "0" || got[0].Order != 9 {
		t.Fatalf("Unresolved = %+v, want the first intent", got)
	}
	add(t, j, journal.Pushes, 1)
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 2 || got[0].Intent != intents[0] || got[1].Intent != intents[2] {
		t.Errorf("Unresolved = %+v after a kill, want the first and the last intent", got)
	}
	if seq, err := j.Complete(ctx, got[0].Intent, 9, []byte("found")); err != nil || seq != 4 { // 2 was the number of the lost event
		t.Errorf("Complete = %d, %v; want 4", seq, err)
	}
}

// An fsync fails and the record of an open intent is lost. It is written again, at
// the latest before a segment is deleted.
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
		t.Fatal("Append succeeded, want the error of the fsync")
	}
	add(t, j, journal.Pushes, 20)
	if got := open(t, disk.Kill()).Unresolved(); len(got) != 0 {
		t.Fatalf("Unresolved = %+v after a kill, want none: the intent is not on disk yet", got)
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
