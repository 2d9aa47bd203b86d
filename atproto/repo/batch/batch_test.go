package batch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo"
)

const collection = "com.example.note"

func record(text string) []byte {
	data, err := atdata.MarshalCBOR(map[string]any{"$type": collection, "text": text})
	if err != nil {
		panic(err)
	}
	return data
}

func note(action repo.Action, rkey, text string) repo.Write {
	return repo.Write{Action: action, Collection: collection, RKey: rkey, Record: record(text)}
}

// newWriter returns a writer to a new repo with one record, "first". delay is the
// delay of its commits.
func newWriter(t *testing.T, delay *atomic.Int64) *Writer {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Init(repo.Config{
		Dir: "repo", DID: "did:web:registry.example.com", Key: key, FS: vfs.NewMem(), Reserve: 1,
	}, []repo.Write{note(repo.Create, "first", "x")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return New(r, func() time.Duration { return time.Duration(delay.Load()) })
}

// inBubble runs a test with a fake clock and a writer that delays commits by an
// hour.
func inBubble(t *testing.T, test func(*testing.T, *Writer, *atomic.Int64)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var delay atomic.Int64
		delay.Store(int64(time.Hour))
		test(t, newWriter(t, &delay), &delay)
	})
}

// commits returns the number of commits after an event.
func commits(t *testing.T, w *Writer, after uint64) (n int) {
	t.Helper()
	for {
		page, err := w.Events(after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return n
		}
		n += len(page)
		after = page[len(page)-1].Seq
	}
}

func TestNoDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *Writer, delay *atomic.Int64) {
		delay.Store(0)
		before, start := w.Head().Seq, time.Now()
		for i := range 20 {
			if _, err := w.Apply(t.Context(), []repo.Write{note(repo.Create, fmt.Sprint(i), "x")}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := commits(t, w, before); got != 20 {
			t.Errorf("%d commits, want 20", got)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("delayed by %s", took)
		}
	})
}

// Delayed calls share a commit: each gets its own CIDs, and a refused one its own
// error.
func TestShared(t *testing.T) {
	inBubble(t, func(t *testing.T, w *Writer, _ *atomic.Int64) {
		before := w.Head().Seq
		var group sync.WaitGroup
		for i := range 30 {
			group.Go(func() {
				key := fmt.Sprint("k", i)
				writes := []repo.Write{note(repo.Create, key, "one"), note(repo.Create, key+"b", "two"), note(repo.Update, key, key)}
				if i%10 == 3 {
					checkRefused(t, w, writes)
					return
				}
				result, err := w.Apply(t.Context(), writes, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if len(result.CIDs) != 3 || result.CIDs[2] != block.CIDOf(record(key)) {
					t.Errorf("call %d: CIDs %v", i, result.CIDs)
				}
				if c, _, err := w.Get(collection, key); err != nil || c != result.CIDs[2] {
					t.Errorf("call %d: %s is stored, %v", i, c, err)
				}
			})
		}
		group.Wait()
		if got := commits(t, w, before); got != 1 {
			t.Errorf("%d commits, want 1", got)
		}
		if page, _, err := w.List(collection, "", 1000, false); err != nil || len(page) != 1+2*27 {
			t.Errorf("%d records, want %d (%v)", len(page), 1+2*27, err)
		}
	})
}

// checkRefused adds to writes, which are at most three, one that must be refused.
func checkRefused(t *testing.T, w *Writer, writes []repo.Write) {
	_, err := w.Apply(t.Context(), append(writes, note(repo.Create, "first", "again")), nil)
	var refused *repo.WriteError
	if !errors.As(err, &refused) || refused.Index != 3 || !errors.Is(err, repo.ErrExists) || !strings.HasSuffix(refused.Path, "/first") {
		t.Errorf("refused call: %v", err)
	}
}

// A call whose context ends while it is delayed is withdrawn.
func TestWithdrawn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *Writer, _ *atomic.Int64) {
		var group sync.WaitGroup
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := w.Apply(ctx, []repo.Write{note(repo.Create, "withdrawn", "x")}, nil)
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, repo.ErrUnknownOutcome) {
				t.Errorf("withdrawn call: %v", err)
			}
		})
		group.Go(func() {
			if _, err := w.Apply(t.Context(), []repo.Write{note(repo.Create, "kept", "x")}, nil); err != nil {
				t.Error(err)
			}
		})
		group.Wait()
		if _, _, err := w.Get(collection, "kept"); err != nil {
			t.Error(err)
		}
		if _, _, err := w.Get(collection, "withdrawn"); !errors.Is(err, repo.ErrNotFound) {
			t.Errorf("the withdrawn call was applied: %v", err)
		}
	})
}

// Calls that exceed one commit, in writes or in bytes, are spread over several.
func TestSplit(t *testing.T) {
	inBubble(t, func(t *testing.T, w *Writer, _ *atomic.Int64) {
		before := w.Head().Seq
		big := strings.Repeat("big", 100_000)
		var group sync.WaitGroup
		for i := range 10 {
			group.Go(func() {
				writes := make([]repo.Write, 70)
				for j := range writes {
					writes[j] = note(repo.Create, fmt.Sprintf("k%d-%d", i, j), "x")
				}
				if i < 2 {
					writes = []repo.Write{note(repo.Create, fmt.Sprint("big", i), big), note(repo.Create, fmt.Sprint("also", i), big)}
				}
				if _, err := w.Apply(t.Context(), writes, nil); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		page, _, err := w.List(collection, "", 1000, false)
		if err != nil || len(page) != 1+8*70+4 {
			t.Errorf("%d records (%v)", len(page), err)
		}
		if got := commits(t, w, before); got < 4 || got > 6 { // two or three calls each
			t.Errorf("%d commits, want 4 to 6", got)
		}
	})
}

func TestSwapIsNotDelayed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *Writer, _ *atomic.Int64) {
		start, head := time.Now(), w.Head().Commit
		if _, err := w.Apply(t.Context(), []repo.Write{note(repo.Create, "swap", "x")}, &head); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("delayed by %s", took)
		}
	})
}

// Close doesn't wait for delayed calls.
func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, w *Writer, _ *atomic.Int64) {
		start := time.Now()
		failed := make(chan error, 1)
		go func() {
			_, err := w.Apply(context.Background(), []repo.Write{note(repo.Create, "a", "x")}, nil)
			failed <- err
		}()
		synctest.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; !errors.Is(err, repo.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("closed after %s", took)
		}
	})
}
