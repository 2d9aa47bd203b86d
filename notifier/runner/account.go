package runner

import "github.com/tidings-dev/tidings/notifier/delivery"

// beginWait notes that a sink cannot write to the account at the moment, and logs it unless
// it has waited for the same reason before. A sink that has nothing to write waits until it
// writes again. It is no warning if the sink waits by itself, such as after a start.
func (r *Runner) beginWait(sink string, pause delivery.Pause, reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, paused := r.waiting[sink]
	r.waiting[sink] = pause
	before.Until = pause.Until
	switch {
	case paused && before == pause:
	case pause.Planned:
		r.Log.Info("a sink waits; its events stay pending", "sink", sink, "reason", reason)
	default:
		r.Log.Warn("a sink is paused; its events stay pending", "sink", sink, "error", reason)
	}
}

// endWait notes that a sink writes again.
func (r *Runner) endWait(sink string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, paused := r.waiting[sink]; paused {
		delete(r.waiting, sink)
		r.Log.Info("a paused sink continues", "sink", sink)
	}
}

// Waiting returns why a sink cannot write to the account; false if it can.
func (r *Runner) Waiting(sink string) (delivery.Pause, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause, ok := r.waiting[sink]
	return pause, ok
}
