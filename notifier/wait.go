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
			sink.Pause(ctx, min(wait, maxBackoff))
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
