package runner

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/sink"
)

const maxBackoff = time.Minute

// A Backoff waits longer after each error in a row.
type Backoff struct {
	r    *Runner
	name string // of the sink
	next time.Duration
}

// NewBackoff returns a Backoff for a sink.
func (r *Runner) NewBackoff(name string) *Backoff { return &Backoff{r: r, name: name, next: r.Backoff} }

// Reset is called after a success.
func (b *Backoff) Reset() {
	b.next = b.r.Backoff
	b.r.endWait(b.name)
}

// Sleep waits after an error, or until ctx ends.
func (b *Backoff) Sleep(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p, paused := delivery.PauseOf(err)
	if paused {
		b.r.beginWait(b.name, p, err)
		if wait := p.Until.Sub(b.r.Now()); wait > 0 {
			b.pauseUntil(ctx, p.Until, min(wait, maxBackoff))
			return
		}
	}
	b.r.Metrics.Retry(b.name)
	if !paused { // the pause is logged
		b.r.Log.Warn("trying again", "sink", b.name, "in", b.next, "error", err)
	}
	sink.Pause(ctx, b.next/2+rand.N(b.next/2+1))
	b.next = min(2*b.next, maxBackoff)
}

// clockCheck is how often a pause reads the clock.
const clockCheck = time.Second / 4

// pauseUntil returns when the clock has reached a time, after at most d, or when ctx ends.
// The clock may be set ahead meanwhile, and a timer stands still while the machine is
// suspended.
func (b *Backoff) pauseUntil(ctx context.Context, until time.Time, d time.Duration) {
	for ; d > 0 && ctx.Err() == nil && b.r.Now().Before(until); d -= clockCheck {
		sink.Pause(ctx, min(d, clockCheck))
	}
}
