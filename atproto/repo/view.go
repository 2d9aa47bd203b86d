package repo

import (
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// view is the repo as of a durable commit. Pebble shows writes before they
// are durable, so readers use a snapshot that is taken after the fsync.
type view struct {
	layout.State
	snap store.Snapshot
	refs int // readers, plus one while it is the newest; guarded by Repo.mu
}

// publish shows a durable state to readers and wakes those that wait for it.
// release drops the previous state, which takes Pebble some time.
func (r *Repo) publish(s layout.State) (release func()) {
	v := &view{State: s, snap: r.store.NewSnapshot(), refs: 1}
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

// acquire returns the newest view, which the caller must release.
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
	if !r.unref(v) {
		return
	}
	// Without the lock, since closing a snapshot takes some time.
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

// unref reports whether this was the last reference to the view.
func (r *Repo) unref(v *view) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	v.refs--
	return v.refs == 0
}
