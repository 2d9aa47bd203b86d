package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/block"
)

// A writer that always has something to write stays within each limit, and is not
// slower than necessary.
func TestRate(t *testing.T) {
	t.Parallel()
	r := newRate(relayLimits)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	begin := now
	if wait := r.wait(now); wait > 0 {
		t.Errorf("the first is delayed by %s", wait)
	}
	var events []time.Time
	for now.Before(begin.Add(3 * 24 * time.Hour)) {
		if wait := r.wait(now); wait > 0 {
			now = now.Add(wait)
		}
		r.add(now)
		events = append(events, now)
		now = now.Add(time.Millisecond) // the minimum that a commit takes
	}
	for _, l := range relayLimits {
		most, from := 0, 0
		for i, at := range events {
			for at.Sub(events[from]) >= l.window {
				from++
			}
			most = max(most, i-from+1)
		}
		if most > l.events {
			t.Errorf("%d events in %s, at most %d", most, l.window, l.events)
		}
		if most < l.events/2 {
			t.Errorf("never more than %d in %s", most, l.window)
		}
	}
	if perDay := len(events) / 3; perDay < 10_000 {
		t.Errorf("%d events a day", perDay)
	}
	// After a quiet period there is no delay.
	if wait := r.wait(now.Add(25 * time.Hour)); wait > 0 {
		t.Errorf("after a quiet day %s", wait)
	}
}

// delaying returns a repository in which half of the rate limit is used, so that
// the next call is delayed.
func delaying(t *testing.T, wait time.Duration) *Paced {
	r := initRepo(t, testConfig(t), profile())
	r.rate.mu.Lock()
	r.rate.counts = newRate([]limit{{wait, 2}}).counts
	r.rate.mu.Unlock()
	r.rate.add(time.Now())
	return r.Paced(nil)
}

func TestPacedWithoutDelay(t *testing.T) {
	t.Parallel()
	p := initRepo(t, testConfig(t), profile()).Paced(nil)
	revs := map[string]bool{}
	for i := range 20 {
		result, err := p.Apply(context.Background(), []Write{note(Create, fmt.Sprint(i), "x")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		revs[result.Rev] = true
	}
	if len(revs) != 20 {
		t.Errorf("%d commits", len(revs))
	}
}

// Delayed calls share a commit: each gets its own CIDs, a refused one its own
// error, and a call whose context ends is withdrawn.
func TestPacedMerges(t *testing.T) {
	t.Parallel()
	p := delaying(t, time.Second)
	before := p.Head()
	if _, err := p.Repo.Apply(context.Background(), []Write{note(Create, "taken", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	const calls = 30
	var group sync.WaitGroup
	revs := make([]string, calls)
	group.Go(func() {
		_, err := p.Apply(impatient, []Write{note(Create, "impatient", "x")}, nil)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("a call whose context ended: %v", err)
		}
	})
	for i := range calls {
		group.Go(func() {
			key := fmt.Sprint("k", i)
			writes := []Write{note(Create, key, "one"), note(Create, key+"b", "two"), note(Update, key, key)}
			if i%10 == 3 {
				writes = append(writes, note(Create, "taken", "again"))
			}
			result, err := p.Apply(context.Background(), writes, nil)
			if i%10 == 3 {
				var at *WriteError
				if !errors.As(err, &at) || at.Index != 3 || !errors.Is(err, ErrExists) || !strings.HasSuffix(at.Path, "/taken") {
					t.Errorf("a refused call: %v", err)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			revs[i] = result.Rev
			if len(result.CIDs) != 3 || result.CIDs[2] != block.CIDOf(record(key)) {
				t.Errorf("call %d: %v", i, result.CIDs)
			}
			if c, _, err := p.Get("com.example.note", key); err != nil || c != result.CIDs[2] {
				t.Errorf("call %d: stored is %s (%v)", i, c, err)
			}
		})
	}
	group.Wait()
	m := model{}
	m.apply([]Write{profile(), note(Create, "taken", "x")})
	for i, rev := range revs {
		if i%10 == 3 {
			continue
		}
		if rev != revs[0] {
			t.Errorf("call %d is in commit %s, call 0 in %s", i, rev, revs[0])
		}
		key := fmt.Sprint("k", i)
		m.apply([]Write{note(Create, key, key), note(Create, key+"b", "two")})
	}
	if got := len(events(t, p.Repo, before.Seq)); got != 2 {
		t.Errorf("%d commits, want 2", got)
	}
	checkStore(t, p.Repo, m)
}

// Calls that exceed one commit are spread over several; one with a swap is not
// delayed.
func TestPacedSplits(t *testing.T) {
	t.Parallel()
	p := delaying(t, time.Second)
	before := p.Head()
	if _, err := p.Apply(context.Background(), []Write{note(Create, "swap", "x")}, &before.Commit); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("big", 100_000)
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			writes := make([]Write, 70)
			for j := range writes {
				writes[j] = note(Create, fmt.Sprintf("k%d-%d", i, j), "x")
			}
			if i < 2 {
				writes = []Write{note(Create, fmt.Sprint("big", i), big), note(Create, fmt.Sprint("also", i), big)}
			}
			if _, err := p.Apply(context.Background(), writes, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	page, _, err := p.List("com.example.note", "", 1000, false)
	if err != nil || len(page) != 1+8*70+4 {
		t.Errorf("%d records (%v)", len(page), err)
	}
	if got := len(events(t, p.Repo, before.Seq)); got < 5 || got > 7 { // the swap, and two or three calls each
		t.Errorf("%d commits", got)
	}
}

// Close doesn't wait for delayed calls.
func TestPacedClose(t *testing.T) {
	t.Parallel()
	p := delaying(t, time.Hour)
	failed := make(chan error)
	go func() {
		_, err := p.Apply(context.Background(), []Write{note(Create, "a", "x")}, nil)
		failed <- err
	}()
	for delayed := false; !delayed; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		delayed = p.pending != nil && len(p.pending.calls) == 1
		p.mu.Unlock()
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// While nobody reads, calls are not delayed, however many there were.
func TestPacedUnread(t *testing.T) {
	t.Parallel()
	p := delaying(t, 24*time.Hour)
	var read atomic.Bool
	p.read = read.Load
	if _, err := p.Repo.Apply(context.Background(), []Write{note(Create, "used", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	revs := map[string]bool{}
	for i := range 50 {
		result, err := p.Apply(context.Background(), []Write{note(Create, fmt.Sprint(i), "x")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		revs[result.Rev] = true
	}
	if len(revs) != 50 {
		t.Errorf("%d commits", len(revs))
	}
	read.Store(true)
	impatient, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Apply(impatient, []Write{note(Create, "read", "x")}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a reader: %v, want the call to be delayed", err)
	}
}
