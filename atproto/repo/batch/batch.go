// Package batch writes to a repo at a limited rate. While commits are delayed, the
// calls of several callers share one.
package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// Writer is a Repo whose Apply may be delayed. It is for callers that can wait a
// few seconds: delayed calls share a commit of up to repo.MaxWrites writes.
type Writer struct {
	*repo.Repo
	delay func() time.Duration

	mu      sync.Mutex
	pending *pendingCommit  // the commit that calls may join; nil: none is delayed
	running <-chan struct{} // closed when the running commit ends; nil: none is running
}

// New returns a Writer, which several callers share. delay returns how long the
// next commit should be delayed, and must not block.
func New(r *repo.Repo, delay func() time.Duration) *Writer { return &Writer{Repo: r, delay: delay} }

// pendingCommit is a delayed commit.
type pendingCommit struct {
	calls  []*call
	writes int
	bytes  int
	done   chan struct{} // closed when it has been made
}

// call is a delayed call of Apply.
type call struct {
	writes []repo.Write
	bytes  int         // of records
	answer chan answer // buffered
}

type answer struct {
	result repo.Result
	err    error
}

func newCall(writes []repo.Write) *call {
	c := &call{writes: writes, answer: make(chan answer, 1)}
	for _, w := range writes {
		c.bytes += len(w.Record)
	}
	return c
}

// maxBytes of records in a shared commit leave room for the nodes of its proof.
const maxBytes = repo.MaxCommit / 2

func (p *pendingCommit) hasRoom(c *call) bool {
	return len(p.calls) == 0 || p.writes+len(c.writes) <= repo.MaxWrites && p.bytes+c.bytes <= maxBytes
}

func (p *pendingCommit) add(c *call) {
	p.calls = append(p.calls, c)
	p.writes += len(c.writes)
	p.bytes += c.bytes
}

// remove reports whether it had the call.
func (p *pendingCommit) remove(c *call) bool {
	i := slices.Index(p.calls, c)
	if i < 0 {
		return false
	}
	p.calls = slices.Delete(p.calls, i, i+1)
	p.writes -= len(c.writes)
	p.bytes -= c.bytes
	return true
}

// Apply has the contract of Repo.Apply, except that the commit may also hold the
// writes of other calls, in the order of the calls. A call with a refused write
// fails alone. A call with swap is not delayed.
func (w *Writer) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	if swap != nil || len(writes) == 0 {
		return w.Repo.Apply(ctx, writes, swap)
	}
	if err := repo.CheckWrites(writes); err != nil {
		return repo.Result{}, err
	}
	c := newCall(writes)
	for {
		full, joined := w.join(c)
		if joined {
			return w.await(ctx, c)
		}
		if full == nil {
			return w.Repo.Apply(ctx, writes, nil)
		}
		select {
		case <-full:
		case <-ctx.Done():
			return repo.Result{}, fmt.Errorf("wait to write: %w", ctx.Err())
		}
	}
}

// join adds a call to the pending commit. joined is false if no delay is
// necessary, or if the pending commit has no room; then full is closed when that
// commit has been made.
func (w *Writer) join(c *call) (full <-chan struct{}, joined bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending == nil {
		if w.running == nil && w.delay() <= 0 {
			return nil, false
		}
		w.pending = &pendingCommit{done: make(chan struct{})}
		go w.commitLater(w.pending, w.running)
	}
	if !w.pending.hasRoom(c) {
		return w.pending.done, false
	}
	w.pending.add(c)
	return nil, true
}

// await waits for a call's answer. If its context ends before the commit started
// the call is withdrawn.
func (w *Writer) await(ctx context.Context, c *call) (repo.Result, error) {
	select {
	case a := <-c.answer:
		return a.result, a.err
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending != nil && w.pending.remove(c) {
		return repo.Result{}, fmt.Errorf("wait to write: %w", ctx.Err())
	}
	return repo.Result{}, fmt.Errorf("%w: %w", repo.ErrUnknownOutcome, ctx.Err())
}

// commitLater makes the commit when it is due after the previous one, or when the
// repo is closed.
func (w *Writer) commitLater(p *pendingCommit, previous <-chan struct{}) {
	if previous != nil {
		<-previous
	}
	due := time.NewTimer(w.delay())
	defer due.Stop()
	select {
	case <-due.C:
	case <-w.Closing():
	}
	w.mu.Lock()
	w.pending, w.running = nil, p.done
	w.mu.Unlock()
	w.applyAll(p.calls)
	w.mu.Lock()
	if w.running == p.done {
		w.running = nil
	}
	w.mu.Unlock()
	close(p.done)
}

// applyAll makes one commit of calls. A call whose write is refused is answered
// and left out; if together they are too large, each is applied alone.
func (w *Writer) applyAll(calls []*call) {
	for len(calls) > 0 {
		var all []repo.Write
		for _, c := range calls {
			all = append(all, c.writes...)
		}
		result, err := w.Repo.Apply(context.Background(), all, nil)
		var refused *repo.WriteError
		switch {
		case errors.As(err, &refused):
			calls = answerRefused(calls, refused)
			continue
		case len(calls) > 1 && errors.Is(err, repo.ErrTooLarge):
			for _, c := range calls {
				w.applyAll([]*call{c})
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
func answerRefused(calls []*call, refused *repo.WriteError) (others []*call) {
	from := 0
	for i, c := range calls {
		if refused.Index < from+len(c.writes) {
			c.answer <- answer{err: &repo.WriteError{Index: refused.Index - from, Path: refused.Path, Err: refused.Err}}
			return append(calls[:i:i], calls[i+1:]...)
		}
		from += len(c.writes)
	}
	panic("refused write is in no call")
}
