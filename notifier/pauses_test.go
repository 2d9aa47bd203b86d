package notifier

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
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
		name      string        // of the error
		until     time.Duration // from now; 0: not known
		reason    string
		suspended bool
	}{
		"limited":                  {pds.Limited, "RateLimitExceeded", 30 * time.Millisecond, reasonLimited, false},
		"suspended":                {pds.Suspended, "AuthMissing", 0, "the account cannot be written: the log has the reason", true},
		"suspended, until a login": {pds.Suspended, "", 30 * time.Millisecond, "the account cannot be written: the log has the reason", true},
		"deactivated":              {pds.Suspended, "AccountDeactivated", 0, "the account cannot be written: it is deactivated", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, account := newPausingRig(t)
			answer := &pds.Error{Outcome: test.outcome, Name: test.name, Err: errors.New("no writes")}
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
