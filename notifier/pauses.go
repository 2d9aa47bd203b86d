package notifier

import (
	"log/slog"
	"sync"

	"github.com/tidings-dev/tidings/notifier/delivery"
)

// pauses are the sinks that cannot write to the account at the moment. A sink that has
// nothing to write stays in it until it writes again.
type pauses struct {
	log *slog.Logger

	mu     sync.Mutex
	paused map[string]delivery.Pause // by sink
}

// begin notes that a sink pauses, and logs it if it did not pause for that reason before.
func (p *pauses) begin(sink string, pause delivery.Pause, reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, paused := p.paused[sink]
	if p.paused == nil {
		p.paused = map[string]delivery.Pause{}
	}
	p.paused[sink] = pause
	if !paused || before.Limited != pause.Limited {
		p.log.Warn("a sink is paused; its events stay pending", "sink", sink, "error", reason)
	}
}

// end notes that a sink writes again.
func (p *pauses) end(sink string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, paused := p.paused[sink]; paused {
		delete(p.paused, sink)
		p.log.Info("a paused sink continues", "sink", sink)
	}
}

// get returns the pause of a sink; false if it is not paused.
func (p *pauses) get(sink string) (delivery.Pause, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pause, ok := p.paused[sink]
	return pause, ok
}
