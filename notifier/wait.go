package notifier

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/sink"
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
			b.pauseUntil(ctx, p.Until, min(wait, maxBackoff))
			return
		}
	}
	b.n.metrics.Retry(b.sink)
	if !paused { // the pause is logged
		b.n.log.Warn("trying again", "sink", b.sink, "in", b.next, "error", err)
	}
	sink.Pause(ctx, b.next/2+rand.N(b.next/2+1))
	b.next = min(2*b.next, maxBackoff)
}

// clockCheck is how often a pause reads the clock.
const clockCheck = time.Second / 4

// pauseUntil returns when the clock has reached a time, after at most d, or when ctx ends.
// The clock may be set ahead meanwhile, and a timer stands still while the machine is
// suspended.
func (b *backoff) pauseUntil(ctx context.Context, until time.Time, d time.Duration) {
	for ; d > 0 && ctx.Err() == nil && b.n.now().Before(until); d -= clockCheck {
		sink.Pause(ctx, min(d, clockCheck))
	}
}
