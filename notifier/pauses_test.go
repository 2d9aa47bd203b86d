package notifier

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
)

// pausing is an account on another PDS, with calls that can be made to fail.
type pausing struct {
	delivery.Publisher
	reads, writes atomic.Pointer[pds.Error] // what the calls return; nil: as without it
}

func (p *pausing) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	if err := p.writes.Load(); err != nil {
		return repo.Result{}, err
	}
	return p.Publisher.Apply(ctx, writes, swap)
}

func (p *pausing) Rev(ctx context.Context) (string, error) {
	if err := p.reads.Load(); err != nil {
		return "", err
	}
	return p.Publisher.Rev(ctx)
}

// newPausingRig is a rig whose account is pausing; posts are written past it.
func newPausingRig(t *testing.T) (*rig, *pausing) {
	t.Helper()
	r, p := newRig(t, nil), &pausing{}
	r.publisher = func(account delivery.Publisher) delivery.Publisher {
		p.Publisher = account
		return p
	}
	r.reopen(shortWindows())
	return r, p
}

// sink is the health of a sink of the push stream.
func (r *rig) sink(name string) SinkHealth {
	r.t.Helper()
	for _, h := range r.Health() {
		if h.Sink == name {
			return h
		}
	}
	r.t.Fatalf("no sink %s", name)
	return SinkHealth{}
}

// While the points of the account are spent, layer records wait, posts are written, and the
// health says why and until when. Afterwards the sink continues, and nothing is given up.
func TestSinkPaused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		outcome   pds.Outcome
		until     time.Duration // from now; 0: not known
		reason    string
		suspended bool
	}{
		"limited":                  {pds.Limited, 30 * time.Millisecond, reasonLimited, false},
		"suspended":                {pds.Suspended, 0, reasonSuspended, true},
		"suspended, until a login": {pds.Suspended, 30 * time.Millisecond, reasonSuspended, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, account := newPausingRig(t)
			answer := &pds.Error{Outcome: test.outcome, Err: errors.New("no writes")}
			if test.until > 0 {
				answer.Until = time.Now().Add(test.until)
			}
			account.writes.Store(answer)
			r.push(image("a", 3).as("oss/app", "v1"))
			r.until("the sink is paused and the post written", func() bool {
				h := r.sink("records")
				return h.Paused() && len(r.posts()) == 1
			})
			h := r.sink("records")
			if h.State != "paused" || h.Reason != test.reason || !h.Until.Equal(answer.Until) || h.Suspended() != test.suspended || h.Depth != 1 {
				t.Errorf("the sink is %+v with depth %d", h, h.Depth)
			}
			if h := r.sink("announce"); h.Paused() || h.Reason != "" {
				t.Errorf("the sink of posts is %+v", h)
			}
			if found := len(r.records()); found > 0 {
				t.Errorf("%d records are written", found)
			}
			account.writes.Store(nil)
			r.drain()
			r.until("the sink is not paused", func() bool { h := r.sink("records"); return h.State == "ok" && h.Reason == "" && h.Until.IsZero() })
			if found := len(r.records()); found != 3 || len(r.letters()) > 0 {
				t.Errorf("%d records, want 3; dead letters %+v", found, r.letters())
			}
		})
	}
}

// A sink that is paused since the start because the account cannot be read is not paused any
// more once it can, also if there is nothing to write.
func TestSinkPausedAtStart(t *testing.T) {
	t.Parallel()
	r, account := newPausingRig(t)
	account.reads.Store(&pds.Error{Outcome: pds.Suspended, Err: errors.New("deactivated")})
	r.reopen(nil)
	r.until("the sink is paused", func() bool { h := r.sink("records"); return h.Suspended() })
	account.reads.Store(nil)
	r.until("the sink is not paused", func() bool { h := r.sink("records"); return !h.Paused() })
}

// A sink that is paused tries again when the pause ends, and at least once a minute; without
// an end it waits as after other errors.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err         error
		before      int           // earlier errors
		least, most time.Duration // of waiting
	}{
		"an end soon":        {&pds.Error{Outcome: pds.Limited, Until: epoch.Add(5 * time.Second)}, 0, 5 * time.Second, 5 * time.Second},
		"an end later":       {&pds.Error{Outcome: pds.Limited, Until: epoch.Add(time.Hour)}, 0, time.Minute, time.Minute},
		"no end":             {&pds.Error{Outcome: pds.Suspended}, 0, time.Second / 2, time.Second},
		"an end in the past": {&pds.Error{Outcome: pds.Limited, Until: epoch.Add(-time.Hour)}, 0, time.Second / 2, time.Second},
		"another error":      {errFault, 0, time.Second / 2, time.Second},
		"a fourth error":     {errFault, 3, 4 * time.Second, 8 * time.Second},
		"many errors":        {errFault, 30, 30 * time.Second, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := waitingNotifier(&bytes.Buffer{})
				b := n.newBackoff("records")
				for range test.before {
					b.sleep(t.Context(), errFault)
				}
				n.now = func() time.Time { return epoch }
				begun := time.Now()
				b.sleep(t.Context(), test.err)
				if waited := time.Since(begun); waited < test.least || waited > test.most {
					t.Errorf("waited %s, want %s to %s", waited, test.least, test.most)
				}
				b.reset()
				begun = time.Now()
				b.sleep(t.Context(), errFault)
				if waited := time.Since(begun); waited > time.Second {
					t.Errorf("after a success it waits %s", waited)
				}
				stopped, stop := context.WithCancel(t.Context())
				stop()
				begun = time.Now()
				b.sleep(stopped, test.err)
				if waited := time.Since(begun); waited != 0 {
					t.Errorf("after the end it waits %s", waited)
				}
			})
		})
	}
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// waitingNotifier is a notifier without stores.
func waitingNotifier(log *bytes.Buffer) *Notifier {
	n := &Notifier{log: slog.New(slog.NewTextHandler(log, nil)), backoff: time.Second, now: time.Now}
	n.pauses.log = n.log
	return n
}

// The begin of a pause is logged once with its reason, and so is its end.
func TestPauseLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := waitingNotifier(&log).newBackoff("records")
		want := func(what string, times int) {
			t.Helper()
			if got := strings.Count(log.String(), what); got != times {
				t.Errorf("%q is logged %d times, want %d:\n%s", what, got, times, log.String())
			}
		}
		b.reset()
		want("continues", 0)
		for range 10 {
			b.sleep(t.Context(), &pds.Error{Outcome: pds.Limited, Until: time.Now().Add(time.Hour), Err: errors.New("4500 of 4500 points are spent")})
		}
		want("is paused", 1)
		want("4500 of 4500 points", 1)
		want("sink=records", 1)
		for range 10 {
			b.sleep(t.Context(), &pds.Error{Outcome: pds.Suspended, Err: errors.New("the account is deactivated")})
		}
		want("is paused", 2)
		want("the account is deactivated", 1)
		b.reset()
		b.reset()
		want("continues", 1)
		b.sleep(t.Context(), errFault)
		want("is paused", 2)
		want("trying again", 1)
	})
}

// A pause ends soon after the clock was set to a time after its end.
func TestPauseEndsByTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		n := &Notifier{now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
		n.pauses.log = slog.New(slog.DiscardHandler)
		time.AfterFunc(2*time.Second, func() { ahead.Store(int64(time.Minute)) })
		begun := time.Now()
		n.newBackoff("records").sleep(t.Context(), &pds.Error{Outcome: pds.Limited, Until: begun.Add(30 * time.Second)})
		if took := time.Since(begun); took < 2*time.Second || took > 2*time.Second+clockCheck {
			t.Errorf("the pause took %s, want 2s", took)
		}
	})
}
