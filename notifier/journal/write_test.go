package journal_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestHangingDisk checks that no call waits longer than Config.Wait, except the one
// of each stream that is in the operating system's write.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	t.Run("write", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, hangingWrite)
	})
	t.Run("fsync", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, hangingSync)
	})
}

// openHanging opens a journal, begins an intent, and lets the operations op hang until
// resume is called.
func openHanging(t *testing.T, op journaltest.Op) (j *journal.Journal, in journal.Intent, resume func()) {
	t.Helper()
	disk := journaltest.NewDisk()
	j = openWith(t, journal.Config{Dir: "j", FS: disk})
	add(t, j, journal.Pushes, 1)
	add(t, j, journal.Pulls, 1)
	in, err := j.Begin(ctx, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	disk.Inject(journaltest.Fault{Op: op, Hang: hang, Times: 1 << 30})
	return j, in, func() { close(hang) }
}

func hangingWrite(t *testing.T) {
	j, in, resume := openHanging(t, journaltest.Write)
	defer resume()
	for _, s := range streams {
		go j.Append(ctx, s, 1, nil)
	}
	synctest.Wait() // both are in a write
	if _, err := j.Complete(ctx, in, 1, nil); !errors.Is(err, journal.ErrSlow) {
		t.Errorf("Complete: %v, want ErrSlow", err)
	}
	large := make([]byte, journal.MaxPayload)
	for range 20 {
		if _, err := j.Append(ctx, journal.Pulls, 1, large); !errors.Is(err, journal.ErrSlow) {
			t.Errorf("Append of a pull: %v, want ErrSlow", err)
		}
	}
	if _, err := j.Begin(ctx, 1, []byte("withdrawn")); !errors.Is(err, journal.ErrSlow) {
		t.Errorf("Begin: %v, want ErrSlow", err)
	}
	if err := j.Close(); !errors.Is(err, journal.ErrSlow) {
		t.Errorf("Close: %v, want ErrSlow", err)
	}
}

func hangingSync(t *testing.T) {
	j, in, resume := openHanging(t, journaltest.Sync)
	defer resume()
	if _, err := j.Complete(ctx, in, 1, nil); !errors.Is(err, journal.ErrSlow) {
		t.Errorf("Complete: %v, want ErrSlow", err)
	}
	if _, err := j.Append(ctx, journal.Pulls, 1, nil); err != nil {
		t.Errorf("Append of a pull: %v", err)
	}
	if err := j.Close(); !errors.Is(err, journal.ErrSlow) {
		t.Errorf("Close: %v, want ErrSlow", err)
	}
}

// Appends that wait at the same time share one fsync.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewDisk()
		j := openWith(t, journal.Config{Dir: "j", FS: disk})
		add(t, j, journal.Pushes, 1) // with the fsync of the segment's header
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
		synctest.Wait()
		if got := j.Status(journal.Pushes).Last; got != n+1 {
			t.Errorf("%d events are written while the first fsync hangs, want %d", got, n+1)
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
	})
}

// TestPullsNeverWaitForFsync appends pulls to several segments while every fsync
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
		t.Errorf("Status = %+v, want 100 events in several segments", st)
	}
}

// TestLargePushes makes more concurrent pushes than fit in a batch. They wait for
// each other.
func TestLargePushes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewDisk()
		j := openWith(t, journal.Config{Dir: "j", FS: disk})
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
		synctest.Wait()
		close(hang)
		for range n {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if st := j.Status(journal.Pushes); st.Last != n {
			t.Errorf("Status = %+v, want %d events", st, n)
		}
	})
}

// TestLargePushesInMemory makes many large pushes while the disk hangs: the journal
// keeps at most two batches in memory.
func TestLargePushesInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewDisk()
		j := openWith(t, journal.Config{Dir: "j", FS: disk})
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
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		if _, err := j.Append(short, journal.Pushes, 1, large); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Append: %v, want the context's error", err)
		}
		close(hang)
		if err := <-errs; err != nil && !errors.Is(err, journal.ErrSlow) { // the one whose write hung
			t.Error(err)
		}
		add(t, j, journal.Pushes, 1)
		if got := j.Status(journal.Pushes).Last; got > 2+2+1 {
			t.Errorf("%d events are written, want at most two batches of two and the last one", got)
		}
	})
}
