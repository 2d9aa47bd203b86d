package notifier

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const maxBackoff = time.Minute

// backoff waits longer after each error in a row.
type backoff struct {
	n    *Notifier
	sink string
	next time.Duration
}

func (n *Notifier) newBackoff(sink string) *backoff {
	return &backoff{n: n, sink: sink, next: n.backoff}
}

func (b *backoff) reset() { b.next = b.n.backoff }

func (b *backoff) sleep(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	b.n.metrics.retry(b.sink)
	b.n.log.Warn("trying again", "sink", b.sink, "in", b.next, "error", err)
	pause(ctx, b.next/2+rand.N(b.next/2+1))
	b.next = min(2*b.next, maxBackoff)
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// pace lets others use the store between two batches of a long task.
func pace(ctx context.Context) error {
	pause(ctx, time.Millisecond)
	return ctx.Err()
}

// A signal wakes all goroutines that wait for something to change. The zero value
// is ready to use.
type signal struct {
	mu   sync.Mutex
	next chan struct{} // nil: no goroutine waits
}

// wait returns a channel that the next send closes. A caller that gets the channel
// first and then looks at what may have changed misses no change.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
	}
	return s.next
}

func (s *signal) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
}
