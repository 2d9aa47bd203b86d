package notifier

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/tidings-dev/tidings/notifier/delivery"
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

// reset is called after a success.
func (b *backoff) reset() {
	b.next = b.n.backoff
	b.n.pauses.end(b.sink)
}

func (b *backoff) sleep(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p, paused := delivery.PauseOf(err)
	if paused {
		b.n.pauses.begin(b.sink, p, err)
		if wait := p.Until.Sub(b.n.now()); wait > 0 {
			pause(ctx, min(wait, maxBackoff))
			return
		}
	}
	b.n.metrics.Retry(b.sink)
	if !paused { // the pause is logged
		b.n.log.Warn("trying again", "sink", b.sink, "in", b.next, "error", err)
	}
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
