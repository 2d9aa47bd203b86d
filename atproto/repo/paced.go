package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// Paced writes to a repository no faster than relays read, while somebody reads.
// It is for writers that can wait a few seconds: while more than half of what a
// relay takes is used, their calls linger and share a commit of up to 200 writes.
type Paced struct {
	*Repo
	read func() bool // nil: always

	mu    sync.Mutex
	open  *merger         // what calls may join; nil: none lingers
	going <-chan struct{} // closed when the commit that is being made is there; nil: none is
}

// Paced gives the repository to such writers; they share one. read reports whether
// anybody reads the events as they come, and must not block.
func (r *Repo) Paced(read func() bool) *Paced { return &Paced{Repo: r, read: read} }

// wait is how long the next commit should wait.
func (p *Paced) wait() time.Duration {
	if p.read != nil && !p.read() {
		return 0
	}
	return p.rate.wait(time.Now())
}

// merger are calls that will share a commit.
type merger struct {
	calls  []*merged
	writes int
	bytes  int
	done   chan struct{}
}

type merged struct {
	writes []Write
	answer chan answer // room for one
}

// mergeBytes leaves room in a commit for the proof.
const mergeBytes = maxCommitCAR / 2

// Apply keeps Repo.Apply's contract, but for one thing: the commit may hold the
// writes of other calls, too, in the order of the calls. A call with a bad write
// is refused alone.
func (p *Paced) Apply(ctx context.Context, writes []Write, swap *cid.Cid) (Result, error) {
	if err := checkWrites(writes); err != nil {
		return Result{}, err
	}
	call := &merged{writes, make(chan answer, 1)}
	for swap == nil && len(writes) > 0 {
		full, lingers := p.join(call)
		if lingers {
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

// join makes a call linger, unless there is no need to or those who linger
// leave no room; full is closed when they are gone.
func (p *Paced) join(call *merged) (full <-chan struct{}, lingers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := 0
	for _, w := range call.writes {
		bytes += len(w.Record)
	}
	if p.open == nil {
		if p.going == nil && p.wait() <= 0 {
			return nil, false
		}
		p.open = &merger{done: make(chan struct{})}
		go p.linger(p.open, p.going)
	}
	m := p.open
	if len(m.calls) > 0 && (m.writes+len(call.writes) > maxWrites || m.bytes+bytes > mergeBytes) {
		return m.done, false
	}
	m.calls = append(m.calls, call)
	m.writes += len(call.writes)
	m.bytes += bytes
	return nil, true
}

// await waits for a call's answer, and takes back a call that has not begun.
func (p *Paced) await(ctx context.Context, call *merged) (Result, error) {
	select {
	case a := <-call.answer:
		return a.result, a.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open != nil {
		for i, c := range p.open.calls {
			if c == call {
				p.open.calls = append(p.open.calls[:i], p.open.calls[i+1:]...)
				p.open.writes -= len(call.writes)
				return Result{}, fmt.Errorf("wait to write: %w", ctx.Err())
			}
		}
	}
	return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
}

// linger makes the commit when it is due after the one before, or when the
// repository is closed.
func (p *Paced) linger(m *merger, before <-chan struct{}) {
	if before != nil {
		<-before
	}
	due := time.NewTimer(p.wait())
	defer due.Stop()
	select {
	case <-due.C:
	case <-p.closing:
	}
	p.mu.Lock()
	p.open, p.going = nil, m.done
	p.mu.Unlock()
	p.applyAll(m.calls)
	p.mu.Lock()
	if p.going == m.done {
		p.going = nil
	}
	p.mu.Unlock()
	close(m.done)
}

// applyAll makes one commit of calls. One at which it fails is answered and left
// out; if together they are too large, each goes alone.
func (p *Paced) applyAll(calls []*merged) {
	for len(calls) > 0 {
		var all []Write
		for _, c := range calls {
			all = append(all, c.writes...)
		}
		result, err := p.Repo.Apply(context.Background(), all, nil)
		var refused *WriteError
		switch {
		case errors.As(err, &refused):
			calls = answerOne(calls, refused)
			continue
		case len(calls) > 1 && errors.Is(err, ErrTooLarge):
			for _, c := range calls {
				p.applyAll([]*merged{c})
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

// answerOne tells the call that a write is of, and gives the other calls.
func answerOne(calls []*merged, refused *WriteError) (others []*merged) {
	from := 0
	for i, c := range calls {
		if refused.Index < from+len(c.writes) {
			c.answer <- answer{err: &WriteError{refused.Index - from, refused.Path, refused.Err}}
			return append(calls[:i:i], calls[i+1:]...)
		}
		from += len(c.writes)
	}
	panic("a write that no call has")
}
