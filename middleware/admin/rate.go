package admin

import (
	"context"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier"
)

// Rates measures how fast the sinks process events.
type Rates struct {
	positions func() []notifier.Position
	now       func() time.Time

	mu      sync.Mutex
	samples []sample // the oldest first
}

type sample struct {
	at        time.Time
	positions []notifier.Position
}

const (
	sampleEvery = 15 * time.Second
	sampleCount = 20 // five minutes
)

// NewRates returns the rates of what positions returns. Run measures them.
func NewRates(positions func() []notifier.Position, now func() time.Time) *Rates {
	return &Rates{positions: positions, now: now}
}

// Run notes the positions of the sinks until ctx ends.
func (r *Rates) Run(ctx context.Context) error {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		r.sample()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (r *Rates) sample() {
	s := sample{r.now(), r.positions()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) == sampleCount {
		r.samples = r.samples[1:]
	}
	r.samples = append(r.samples, s)
}

// Of returns the events that a sink processed per second since the oldest sample, and the
// time when nothing is pending if that and the rate of new events stay the same; zero if
// that is not known.
func (r *Rates) Of(stream, sink string) (perSecond float64, ends time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) == 0 {
		return 0, time.Time{}
	}
	now := r.now()
	elapsed := now.Sub(r.samples[0].at).Seconds()
	before, known := find(r.samples[0].positions, stream, sink)
	after, still := find(r.positions(), stream, sink)
	if !known || !still || elapsed < 1 || after.Done < before.Done {
		return 0, time.Time{}
	}
	perSecond = float64(after.Done-before.Done) / elapsed
	was, is := before.Pending(), after.Pending()
	if is == 0 || is >= was {
		return perSecond, time.Time{}
	}
	left := float64(is) / (float64(was-is) / elapsed)
	return perSecond, now.Add(time.Duration(left * float64(time.Second)))
}

func find(all []notifier.Position, stream, sink string) (notifier.Position, bool) {
	for _, p := range all {
		if p.Stream == stream && p.Sink == sink {
			return p, true
		}
	}
	return notifier.Position{}, false
}
