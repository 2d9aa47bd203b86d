package journal_test

import (
	"errors"
	"iter"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestCompleteWhileDeleting completes an intent whose segment is about to be deleted,
// while the write hangs. Whether it is written or not, the state of the intent agrees
// with the result of Complete.
func TestCompleteWhileDeleting(t *testing.T) {
	t.Parallel()
	for name, writeErr := range map[string]error{"written": nil, "disk full": syscall.ENOSPC} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { completeWhileDeleting(t, writeErr) })
		})
	}
}

func completeWhileDeleting(t *testing.T, writeErr error) {
	disk := journaltest.NewDisk()
	j := open(t, disk)
	in, err := j.Begin(ctx, 1, []byte("intent"))
	if err != nil {
		t.Fatal(err)
	}
	add(t, j, journal.Pushes, 40)
	hang := make(chan struct{})
	disk.Inject(journaltest.Fault{Op: journaltest.Write, Hang: hang, Err: writeErr, Times: 1})
	disk.Inject(journaltest.Fault{Op: journaltest.Write, Name: ".seg", Err: writeErr, Times: 5})
	done := make(chan error)
	go func() {
		_, err := j.Complete(ctx, in, 1, []byte("event"))
		done <- err
	}()
	synctest.Wait() // it is in a write
	if err := j.SetCursor(journal.Pushes, "r", 40); err != nil {
		t.Fatal(err)
	}
	for _, crashed := range []*journaltest.Disk{disk.Kill(), disk.PowerCut(nil)} {
		if got := open(t, crashed).Unresolved(); len(got) != 1 {
			t.Fatalf("Unresolved = %+v while the intent is being completed, want it", got)
		}
	}
	close(hang)
	if err := <-done; !errors.Is(err, writeErr) {
		t.Fatalf("Complete: %v, want %v", err, writeErr)
	}
	disk.Heal()
	want := 0
	if writeErr != nil {
		want = 1
	}
	for range 3 {
		if got := open(t, disk.Kill()).Unresolved(); len(got) != want {
			t.Errorf("Unresolved = %+v, want %d intents", got, want)
		}
		add(t, j, journal.Pushes, 20)
		if err := j.SetCursor(journal.Pushes, "r", j.Status(journal.Pushes).Last); err != nil {
			t.Fatal(err)
		}
	}
	journaltest.AwaitSize(t, j, journal.Pushes, 2, 0)
}

// If the oldest segment cannot be removed, the next one, which has the event of an
// intent in the oldest, must stay too.
func TestRemoveFails(t *testing.T) {
	t.Parallel()
	for _, op := range []journaltest.Op{journaltest.Remove, journaltest.SyncDir} {
		for skip := range race.Some(60) {
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
						t.Fatalf("%s %d fails: Unresolved = %+v with the cursor at %d, want none", op, skip, got, seq+1)
					}
					j.Close()
				}
			}
			if st := j.Status(journal.Pushes); st.Segments != 1 || len(disk.Files()) != 2 {
				t.Errorf("%s %d fails: Status = %+v, files %v; want one segment", op, skip, st, disk.Files())
			}
		}
	}
}

// A reader has stopped and the disk is full: its oldest events are dropped although
// its cursor cannot be written.
func TestLimitOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	dropped := uint64(0) // the last one
	j, err := journal.Open(journal.Config{Dir: "j", FS: disk, SegmentSize: 600, Limit: 3000,
		Dropped: func(_ journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
			if cursor != "stopped" { // "other", registered while a segment was being deleted
				return nil
			}
			if first != dropped+1 {
				t.Errorf("events %d to %d are dropped, want from %d", first, last, dropped+1)
			}
			dropped = last
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Register(journal.Pushes, "stopped"); err != nil {
		t.Fatal(err)
	}
	disk.Inject(journaltest.Fault{Op: journaltest.Write, Name: "journal.json", Err: syscall.ENOSPC, Times: 1 << 30})
	for range 300 {
		add(t, j, journal.Pushes, 1)
		journaltest.AwaitSize(t, j, journal.Pushes, 0, 3000+2*700)
	}
	disk.Heal()
	if err := j.Register(journal.Pushes, "other"); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if got := j.Cursor(journal.Pushes, "stopped"); got != dropped || dropped == 0 {
		t.Errorf("the cursor is at %d once it can be written, want %d, the last dropped event", got, dropped)
	}
}
