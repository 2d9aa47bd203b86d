package runner

import (
	"context"
	"sync"
)

// A reader takes turns: a step, and a wait after an error.
type reader struct {
	running chan struct{} // has an element while a step or the work of Between runs
	idle    bool          // its sink is paused, and nothing is on its way; guarded by Runner.mu

	mu        sync.Mutex
	wanted    int                // calls of Between
	interrupt context.CancelFunc // ends the present turn; nil: there is none
}

// begin begins a turn.
func (rd *reader) begin(ctx context.Context) (turn context.Context, end context.CancelFunc) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	turn, end = context.WithCancel(ctx)
	rd.interrupt = end
	if rd.wanted > 0 {
		end()
	}
	return turn, end
}

// want changes the number of calls of Between that want to run, and ends the present turn
// unless it has become lower.
func (rd *reader) want(n int) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.wanted += n
	if n >= 0 && rd.interrupt != nil {
		rd.interrupt()
	}
}

// acquire returns once nothing else runs; false if ctx has ended before. Those that wait
// run in the order of their calls.
func (rd *reader) acquire(ctx context.Context) bool {
	select {
	case rd.running <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (rd *reader) release() { <-rd.running }
