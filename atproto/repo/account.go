package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Suspend has every later write refused with ErrSuspended and this reason; nil
// allows them again. It is not kept across Open.
func (r *Repo) Suspend(reason error) {
	if reason == nil {
		r.suspended.Store(nil)
		return
	}
	reason = fmt.Errorf("%w: %w", ErrSuspended, reason)
	r.suspended.Store(&reason)
}

// Suspended returns the error of writes while they are suspended, else nil.
func (r *Repo) Suspended() error {
	if reason := r.suspended.Load(); reason != nil {
		return *reason
	}
	return nil
}

// Deactivate records that the account has moved to another host, such as
// "https://pds.example.com". From now on, and after every Open until Activate,
// writes are refused with ErrDeactivated. #identity and #account are logged once
// for each host; notified reports whether that was now. Calling it again with the
// same host changes nothing. After an error writes are refused until the
// repo is closed, but the events may not be logged: call it again.
func (r *Repo) Deactivate(ctx context.Context, host string) (notified bool, err error) {
	r.movedTo.Store(&host)
	known, err := r.readMovedTo()
	if err == nil && known != host {
		notified = true
		_, err = r.send(request{ctx: ctx, work: func(w *writer, b store.Batch) error {
			b.Set(layout.KeyMoved, []byte(host))
			return errors.Join(w.addNotice(b, Identity), w.addNotice(b, Deactivated))
		}})
	}
	if err != nil {
		return false, fmt.Errorf("deactivate: %w", err)
	}
	return notified, nil
}

// Activate is for an account that has moved back: it logs #identity, #account
// and the #sync of a fresh commit in one transaction, and allows writes again.
// An account that is here is not changed.
func (r *Repo) Activate(ctx context.Context) (notified bool, err error) {
	if r.MovedTo() == "" {
		return false, nil
	}
	err = r.Suspended()
	if err == nil {
		_, err = r.send(request{ctx: ctx, work: func(w *writer, b store.Batch) error {
			b.Delete(layout.KeyMoved)
			return errors.Join(w.addNotice(b, Identity), w.addNotice(b, Account), w.restate(b, w.next.Data))
		}})
	}
	if err != nil {
		return false, fmt.Errorf("activate: %w", err)
	}
	r.movedTo.Store(nil)
	return true, nil
}

// MovedTo returns the host that the account has moved to, "" while it is here.
func (r *Repo) MovedTo() string {
	if host := r.movedTo.Load(); host != nil {
		return *host
	}
	return ""
}

func (r *Repo) readMovedTo() (string, error) {
	v, err := r.acquire()
	if err != nil {
		return "", err
	}
	defer r.release(v)
	return layout.Moved(v.snap)
}

// deactivated returns the error of writes while the account is on another host.
func (r *Repo) deactivated() error {
	if host := r.MovedTo(); host != "" {
		return fmt.Errorf("%w, to %s", ErrDeactivated, host)
	}
	return nil
}

// repeatsMove reports whether a request only logs again that the account is not
// active here.
func (q request) repeatsMove() bool {
	other := func(n Notice) bool { return n != Identity && n != Deactivated }
	return q.work == nil && !q.commit && len(q.notices) > 0 && !slices.ContainsFunc(q.notices, other)
}

// SetFolder records in which folder the repo is, by a name that no copy of
// the folder has. If it was in another folder at the last call, it may be an older
// copy of the repo that subscribers have followed: the batch that records the new
// name also logs the #sync of a fresh commit, or that the account is not active
// here, and notified is true. An empty name is unknown and changes nothing.
func (r *Repo) SetFolder(ctx context.Context, name string) (notified bool, err error) {
	if name == "" {
		return false, nil
	}
	before, known, err := r.readFolder()
	if err == nil && (!known || before != name) {
		notified = known
		err = r.storeFolder(ctx, name, notified)
	}
	if err != nil {
		return false, fmt.Errorf("record the repo's folder: %w", err)
	}
	return notified, nil
}

func (r *Repo) storeFolder(ctx context.Context, name string, notify bool) error {
	if err := r.Suspended(); notify && err != nil {
		return err
	}
	_, err := r.send(request{ctx: ctx, work: func(w *writer, b store.Batch) error {
		b.Set(layout.KeyFolder, []byte(name))
		switch {
		case !notify:
			return nil
		case r.MovedTo() != "":
			return errors.Join(w.addNotice(b, Identity), w.addNotice(b, Deactivated))
		}
		return w.restate(b, w.next.Data)
	}})
	return err
}

func (r *Repo) readFolder() (name string, known bool, err error) {
	v, err := r.acquire()
	if err != nil {
		return "", false, err
	}
	defer r.release(v)
	folder, err := store.Read(v.snap, layout.KeyFolder)
	if errors.Is(err, store.ErrNotFound) {
		return "", false, nil
	}
	return string(folder), err == nil, err
}
