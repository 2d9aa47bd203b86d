package repo

import (
	"github.com/cockroachdb/pebble/v2"
)

// view is the repository as of a durable commit. Pebble shows writes before
// they are fsynced, so readers read from a snapshot that is taken afterwards.
type view struct {
	state
	snap *pebble.Snapshot
	refs int // readers, and one for being the newest; guarded by Repo.mu
}

// publish shows a durable state to readers and wakes those who wait for it. What
// it returns lets go of the state before; Pebble takes its time for that.
func (r *Repo) publish(s state) (release func()) {
	v := &view{state: s, snap: r.store.NewSnapshot(), refs: 1}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.view
	r.views++
	r.view = v
	close(r.changed)
	r.changed = make(chan struct{})
	if old == nil {
		return func() {}
	}
	return func() { r.release(old) }
}

// acquire gives the newest view; release it.
func (r *Repo) acquire() (*view, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	r.view.refs++
	return r.view, nil
}

func (r *Repo) release(v *view) {
	if !r.leave(v) {
		return
	}
	// Pebble takes its time for this, and others want the lock.
	if err := v.snap.Close(); err != nil {
		r.cfg.Logger.Error("close snapshot", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.views--
	if r.closed && r.views == 0 {
		close(r.idle)
	}
}

// leave reports whether nobody needs the view any more.
func (r *Repo) leave(v *view) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	v.refs--
	return v.refs == 0
}
