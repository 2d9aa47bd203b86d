package journal_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestHangingDisk checks that no call waits longer than Config.Wait, except the one
// of each stream that is in the operating system's write.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	for _, op := range []journaltest.Op{journaltest.Write, journaltest.Sync} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			disk := journaltest.NewDisk()
			j := openWith(t, journal.Config{Dir: "j", FS: disk, Wait: 20 * time.Millisecond})
			add(t, j, journal.Pushes, 1)
			add(t, j, journal.Pulls, 1)
			in, err := j.Begin(ctx, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			hang := make(chan struct{})
			disk.Inject(journaltest.Fault{Op: op, Hang: hang, Times: 1 << 30})
			var hanging sync.WaitGroup
			if op == journaltest.Write {
				for _, s := range streams {
					before := disk.Count(op)
					hanging.Go(func() { j.Append(ctx, s, 1, nil) })
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
			hanging.Wait()
		})
	}
}

// Appends that wait at the same time share one fsync.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := openWith(t, journal.Config{Dir: "j", FS: disk})
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
	time.Sleep(20 * time.Millisecond) // most of them are queued while the write hangs
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

// TestLargePushesInMemory makes many large pushes while the disk hangs: the journal
// keeps at most two batches in memory.
func TestLargePushesInMemory(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := openWith(t, journal.Config{Dir: "j", FS: disk, Wait: 2 * time.Second})
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
}
