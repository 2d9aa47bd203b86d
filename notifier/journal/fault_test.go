package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestFaults lets one, two or five operations of each kind fail, at each place
// of the same history, applied or not, and looks at what is left after a kill
// and after a power cut.
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
				t.Run(fmt.Sprintf("%s %s %d", c.op, []string{"not applied", "half", "applied"}[outcome], times), func(t *testing.T) {
					t.Parallel()
					for skip := range 40 {
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
	pulls  []string // likewise
	read   []string // pulls that were read
	failed int
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
	lost := f.Op == journaltest.Sync && f.Outcome == journaltest.Half // then its waiters get the error
	if f.Times == 1 && h.failed > 0 && f.Op != journaltest.Open && !lost {
		h.t.Fatalf("%v: %d appends failed though a second attempt would have worked", f, h.failed)
	}
	// An fsync that drops what it was to keep takes pulls that were not read.
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
				j.SetCursor(journal.Pulls, "r", entries[0].Seq) // a failure only repeats what is read
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
				h.t.Fatalf("%v, %s: events %d and %d of %s are one", f, how, old, e.Seq, s)
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
				t.Fatalf("%v, want ErrFull and ENOSPC", err)
			}
		}
	}
	if got := seqs(t, j, journal.Pulls); !slices.Equal(got, upTo(3)) {
		t.Errorf("on the full disk: events %v", got)
	}
	disk.Inject(journaltest.Fault{Op: journaltest.Truncate, Err: syscall.EIO, Times: 1 << 30})
	for _, later := range []*journaltest.Disk{disk.Kill(), disk.PowerCut(nil)} {
		for _, s := range []journal.Stream{journal.Pulls, journal.Pushes} {
			if got := seqs(t, open(t, later), s); !slices.Equal(got, upTo(3)) {
				t.Errorf("after a crash on the full disk: %s %v", s, got)
			}
		}
	}
	disk.Heal()
	add(t, j, journal.Pulls, 1)
	add(t, j, journal.Pushes, 1)
	for _, s := range []journal.Stream{journal.Pulls, journal.Pushes} {
		if got := seqs(t, open(t, disk.Kill()), s); !slices.Equal(got, upTo(4)) {
			t.Errorf("with space again: %s %v", s, got)
		}
	}
}

// TestHangingDisk checks that no call waits longer than it said, but for the
// one in each stream that the operating system keeps in a write.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	for _, op := range []journaltest.Op{journaltest.Write, journaltest.Sync} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			disk := journaltest.NewDisk()
			j, err := journal.Open(journal.Config{Dir: "j", FS: disk, Wait: 20 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			add(t, j, journal.Pushes, 1)
			add(t, j, journal.Pulls, 1)
			in, err := j.Begin(ctx, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			hang := make(chan struct{})
			disk.Inject(journaltest.Fault{Op: op, Hang: hang, Times: 1 << 30})
			var kept sync.WaitGroup
			if op == journaltest.Write {
				for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
					before := disk.Count(op)
					kept.Go(func() {
						j.Append(ctx, s, 1, nil)
					})
					for disk.Count(op) == before {
						time.Sleep(time.Millisecond)
					}
				}
			}
			if _, err := j.Complete(ctx, in, 1, nil); !errors.Is(err, journal.ErrSlow) {
				t.Errorf("Complete: %v, want ErrSlow", err)
			}
			_, err = j.Append(ctx, journal.Pulls, 1, nil)
			if want := map[bool]error{true: journal.ErrSlow, false: nil}[op == journaltest.Write]; !errors.Is(err, want) {
				t.Errorf("Append of a pull: %v, want %v", err, want)
			}
			if op == journaltest.Write {
				large := make([]byte, journal.MaxPayload)
				for range 20 {
					if _, err := j.Append(ctx, journal.Pulls, 1, large); !errors.Is(err, journal.ErrSlow) {
						t.Errorf("Append: %v, want ErrSlow", err)
					}
				}
				if _, err := j.Begin(ctx, 1, []byte("withdrawn")); !errors.Is(err, journal.ErrSlow) {
					t.Errorf("Begin: %v, want ErrSlow", err)
				}
			}
			if err := j.Close(); !errors.Is(err, journal.ErrSlow) {
				t.Errorf("Close: %v, want ErrSlow", err)
			}
			close(hang)
			kept.Wait()
		})
	}
}

// TestGroupCommit counts fsyncs: those who wait together share one.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j, err := journal.Open(journal.Config{Dir: "j", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	add(t, j, journal.Pushes, 1)
	hang := make(chan struct{})
	before := disk.Count(journaltest.Sync)
	disk.Inject(journaltest.Fault{Op: journaltest.Sync, Hang: hang, Times: 1})
	const n = 50
	errs := make(chan error)
	for range n {
		go func() {
			_, err := j.Append(ctx, journal.Pushes, 1, nil)
			errs <- err
		}()
	}
	for j.Status(journal.Pushes).Last < n+1 {
		time.Sleep(time.Millisecond)
	}
	close(hang)
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if got := disk.Count(journaltest.Sync) - before; got > 2 {
		t.Errorf("%d fsyncs for %d pushes, want at most 2", got, n)
	}
}

// TestPullsNeverWaitForFsync appends over several segments while every fsync
// hangs.
func TestPullsNeverWaitForFsync(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	hang := make(chan struct{})
	defer close(hang)
	disk.Inject(journaltest.Fault{Op: journaltest.Sync, Hang: hang, Times: 1 << 30})
	add(t, j, journal.Pulls, 100)
	if st := j.Status(journal.Pulls); st.Segments < 5 || st.Last != 100 {
		t.Errorf("Status = %+v", st)
	}
}

// TestSettleWhileDeleting completes an intent whose segment is about to be
// deleted, while the disk holds the write back. Written or not, the intent ends
// as what its Complete says.
func TestSettleWhileDeleting(t *testing.T) {
	t.Parallel()
	for _, full := range []error{nil, syscall.ENOSPC} {
		disk := journaltest.NewDisk()
		j := open(t, disk)
		in, err := j.Begin(ctx, 1, []byte("intent"))
		if err != nil {
			t.Fatal(err)
		}
		add(t, j, journal.Pushes, 40)
		hang := make(chan struct{})
		disk.Inject(journaltest.Fault{Op: journaltest.Write, Hang: hang, Err: full, Times: 1})
		disk.Inject(journaltest.Fault{Op: journaltest.Write, Name: ".seg", Err: full, Times: 5})
		before := disk.Count(journaltest.Write)
		done := make(chan error)
		go func() {
			_, err := j.Complete(ctx, in, 1, []byte("event"))
			done <- err
		}()
		for disk.Count(journaltest.Write) == before {
			time.Sleep(time.Millisecond)
		}
		if err := j.SetCursor(journal.Pushes, "r", 40); err != nil {
			t.Fatal(err)
		}
		for _, crashed := range []*journaltest.Disk{disk.Kill(), disk.PowerCut(nil)} {
			if got := open(t, crashed).Unresolved(); len(got) != 1 {
				t.Fatalf("%v: Unresolved = %+v, while it is being completed", full, got)
			}
		}
		close(hang)
		if err := <-done; !errors.Is(err, full) {
			t.Fatalf("Complete: %v, want %v", err, full)
		}
		disk.Heal()
		want := 0
		if full != nil {
			want = 1
		}
		for range 3 {
			if got := open(t, disk.Kill()).Unresolved(); len(got) != want {
				t.Errorf("%v: Unresolved = %+v, want %d", full, got, want)
			}
			add(t, j, journal.Pushes, 20)
			if err := j.SetCursor(journal.Pushes, "r", j.Status(journal.Pushes).Last); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(10 * time.Second); j.Status(journal.Pushes).Segments > 2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("Status = %+v with every event read", j.Status(journal.Pushes))
			}
		}
	}
}

// TestRemoveFails keeps the oldest segment on disk: then the next one, with the
// end of an intent that the oldest has, must stay too.
func TestRemoveFails(t *testing.T) {
	t.Parallel()
	for _, op := range []journaltest.Op{journaltest.Remove, journaltest.SyncDir} {
		for skip := range 60 {
			disk := journaltest.NewDisk()
			j := open(t, disk)
			in, err := j.Begin(ctx, 1, []byte("intent"))
			if err != nil {
				t.Fatal(err)
			}
			add(t, j, journal.Pushes, 20)
			if _, err := j.Complete(ctx, in, 1, []byte("event")); err != nil {
				t.Fatal(err)
			}
			add(t, j, journal.Pushes, 20)
			disk.Inject(journaltest.Fault{Op: op, Err: syscall.EIO, Skip: skip, Times: 1})
			for seq := range uint64(42) {
				j.SetCursor(journal.Pushes, "r", min(seq+1, 41)) // may fail once
				for _, crashed := range []*journaltest.Disk{disk.Kill(), disk.PowerCut(nil)} {
					j := open(t, crashed)
					if got := j.Unresolved(); len(got) != 0 {
						t.Fatalf("%s %d fails: Unresolved = %+v with the cursor at %d", op, skip, got, seq+1)
					}
					j.Close()
				}
			}
			if st := j.Status(journal.Pushes); st.Segments != 1 || len(disk.Files()) != 2 {
				t.Errorf("%s %d fails: Status = %+v, files %v", op, skip, st, disk.Files())
			}
		}
	}
}
