package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// Paced writes to a repository no faster than relays read, while there are any
// subscribers. It is for writers that can wait a few seconds: while more than half
// of a relay's limit is used, calls are delayed and share a commit of up to
// MaxWrites writes.
type Paced struct {
	*Repo
	read func() bool // nil: always

	mu      sync.Mutex
	pending *pendingCommit  // the commit that calls may join; nil: none is delayed
	running <-chan struct{} // closed when the running commit ends; nil: none is running
}

// Paced returns a writer of this kind, which several callers share. read reports
// whether there are subscribers, and must not block; nil: always.
func (r *Repo) Paced(read func() bool) *Paced { return &Paced{Repo: r, read: read} }

// wait returns how long the next commit should be delayed.
func (p *Paced) wait() time.Duration {
	if p.read != nil && !p.read() {
		return 0
	}
	return p.rate.wait(time.Now())
}

// pendingCommit is a delayed commit.
type pendingCommit struct {
	calls  []*pacedCall
	writes int
	bytes  int
	done   chan struct{}
}

type pacedCall struct {
	writes []Write
	answer chan answer // buffered
}

// sharedBytes leaves room in a commit for the proof.
const sharedBytes = MaxCommit / 2

// Apply has the contract of Repo.Apply, except that the commit may also hold the
// writes of other calls, in the order of the calls. A call with a refused write
// fails alone.
func (p *Paced) Apply(ctx context.Context, writes []Write, swap *cid.Cid) (Result, error) {
	if err := checkWrites(writes); err != nil {
		return Result{}, err
	}
	call := &pacedCall{writes, make(chan answer, 1)}
	for swap == nil && len(writes) > 0 {
		full, joined := p.join(call)
		if joined {
			return p.await(ctx, call)
		}
		if full == nil {
			break
		}
		select {
		case <-full:
		case <-ctx.Done():
			return Result{}, fmt.Errorf("wait to write: %w", ctx.Err())
		}
	}
	return p.Repo.Apply(ctx, writes, swap)
}

// join adds a call to the pending commit. joined is false if there is no need for
// a delay, and if the pending commit has no room; then full is closed when that
// is done.
func (p *Paced) join(call *pacedCall) (full <-chan struct{}, joined bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := 0
	for _, w := range call.writes {
		bytes += len(w.Record)
	}
	if p.pending == nil {
		if p.running == nil && p.wait() <= 0 {
			return nil, false
		}
		p.pending = &pendingCommit{done: make(chan struct{})}
		go p.commitLater(p.pending, p.running)
	}
	c := p.pending
	if len(c.calls) > 0 && (c.writes+len(call.writes) > MaxWrites || c.bytes+bytes > sharedBytes) {
		return c.done, false
	}
	c.calls = append(c.calls, call)
	c.writes += len(call.writes)
	c.bytes += bytes
	return nil, true
}

// await waits for a call's answer. If its context ends before the commit started
// the call is withdrawn.
func (p *Paced) await(ctx context.Context, call *pacedCall) (Result, error) {
	select {
	case a := <-call.answer:
		return a.result, a.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending != nil {
		for i, c := range p.pending.calls {
			if c == call {
				p.pending.calls = append(p.pending.calls[:i], p.pending.calls[i+1:]...)
				p.pending.writes -= len(call.writes)
				return Result{}, fmt.Errorf("wait to write: %w", ctx.Err())
			}
		}
	}
	return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
}

// commitLater makes the commit when it is due after the previous one, or when the
// repository is closed.
func (p *Paced) commitLater(c *pendingCommit, previous <-chan struct{}) {
	if previous != nil {
		<-previous
	}
	due := time.NewTimer(p.wait())
	defer due.Stop()
	select {
	case <-due.C:
	case <-p.closing:
	}
	p.mu.Lock()
	p.pending, p.running = nil, c.done
	p.mu.Unlock()
	p.applyAll(c.calls)
	p.mu.Lock()
	if p.running == c.done {
		p.running = nil
	}
	p.mu.Unlock()
	close(c.done)
}

// applyAll makes one commit of calls. A call whose write is refused is answered
// and left out; if together they are too large, each is applied alone.
func (p *Paced) applyAll(calls []*pacedCall) {
	for len(calls) > 0 {
		var all []Write
		for _, c := range calls {
			all = append(all, c.writes...)
		}
		result, err := p.Repo.Apply(context.Background(), all, nil)
		var refused *WriteError
		switch {
		case errors.As(err, &refused):
			calls = answerRefused(calls, refused)
			continue
		case len(calls) > 1 && errors.Is(err, ErrTooLarge):
			for _, c := range calls {
				p.applyAll([]*pacedCall{c})
			}
			return
		}
		for _, c := range calls {
			a := answer{result, err}
			if err == nil {
				n := len(c.writes)
				a.result.CIDs, result.CIDs = result.CIDs[:n:n], result.CIDs[n:]
			}
			c.answer <- a
		}
		return
	}
}

// answerRefused answers the call that has the refused write, and returns the
// other calls.
func answerRefused(calls []*pacedCall, refused *WriteError) (others []*pacedCall) {
	from := 0
	for i, c := range calls {
		if refused.Index < from+len(c.writes) {
			c.answer <- answer{err: &WriteError{refused.Index - from, refused.Path, refused.Err}}
			return append(calls[:i:i], calls[i+1:]...)
		}
		from += len(c.writes)
	}
	panic("refused write is in no call")
}

// relayLimits is how many events indigo's relay accepts from a host that it
// doesn't trust. Above a limit it pauses reading the stream.
var relayLimits = []limit{
	{time.Second, 50},
	{time.Hour, 2600},
	{24 * time.Hour, 21_000},
}

type limit struct {
	window time.Duration
	events int
}

// rate counts events and spaces them so that no limit is exceeded: there is no
// delay while less than half of each limit is used, and above that events are so
// far apart that the other half lasts for the window.
type rate struct {
	mu     sync.Mutex
	counts []windowCount
	last   time.Time
}

// rateSlots divide a window; counted events are up to a slot older than it.
const rateSlots = 60

type windowCount struct {
	limit
	slot [rateSlots]int64 // the slot of time that n counts
	n    [rateSlots]int
}

func newRate(limits []limit) *rate {
	r := &rate{counts: make([]windowCount, len(limits))}
	for i, l := range limits {
		r.counts[i].limit = l
	}
	return r
}

// add counts an event.
func (r *rate) add(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = now
	for i := range r.counts {
		c := &r.counts[i]
		slot := c.at(now)
		if at := slot % rateSlots; c.slot[at] == slot {
			c.n[at]++
		} else {
			c.slot[at], c.n[at] = slot, 1
		}
	}
}

func (c *windowCount) at(now time.Time) int64 { return now.UnixNano() / int64(c.window/rateSlots) }

func (c *windowCount) sum(now time.Time) (n int) {
	slot := c.at(now)
	for i := range c.n {
		if c.slot[i] >= slot-rateSlots {
			n += c.n[i]
		}
	}
	return n
}

// wait returns how long the next event should be delayed.
func (r *rate) wait(now time.Time) (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.counts {
		c := &r.counts[i]
		if half := c.events / 2; c.sum(now) >= half {
			wait = max(wait, r.last.Add(c.window/time.Duration(half)).Sub(now))
		}
	}
	return wait
}
