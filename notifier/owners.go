package notifier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Handles resolves the handles of owners.
type Handles interface {
	// Cached returns the DID of a handle if it is known. It does not wait, and has an
	// unknown handle looked up in the background.
	Cached(handle string) (did string, known bool)
	// Resolve returns the DID of a handle. It waits for a lookup, but not for the retry
	// of one that has failed.
	Resolve(ctx context.Context, handle string) (did string, err error)
	// Changed returns a channel that is closed when the next lookup ends.
	Changed() <-chan struct{}
}

// noHandles resolves no handle.
type noHandles struct{}

var errNoHandles = errors.New("handles can't be resolved")

func (noHandles) Cached(string) (string, bool)                    { return "", false }
func (noHandles) Resolve(context.Context, string) (string, error) { return "", errNoHandles }
func (noHandles) Changed() <-chan struct{}                        { return nil }

// retryParked is how often handles are looked up that pushes wait for. A failed lookup is
// repeated less often by Handles.
const retryParked = 10 * time.Second

// resolvedOwner returns the owner of a repository. Its DID is "" if it is a handle that
// can't be resolved.
func (n *Notifier) resolvedOwner(ctx context.Context, repository string) owners.Owner {
	owner := n.owners.Of(repository)
	if owner.Handle == "" {
		return owner
	}
	if did, err := n.handles.Resolve(ctx, owner.Handle); err == nil {
		return owners.Owner{DID: did}
	}
	return owner
}

// claimIsLocal reports whether a claim in the ledger is of an image of this registry.
// Others have names that begin with a DID. A claim that was rebuilt does not name its
// repository: unless other registries may report images, it is of this one.
func (n *Notifier) claimIsLocal(owner, repository string) bool {
	if repository == ledger.UnknownRepository {
		return owner == n.owner || !n.notified
	}
	return !strings.HasPrefix(repository, "did:")
}

// runParked repeats parked pushes once the handles of their owners are resolved.
func (n *Notifier) runParked(ctx context.Context) error {
	retry := n.runner.NewBackoff("parked")
	moved := false // the pushes of handles that do not own their repositories any more are repeated
	for ctx.Err() == nil {
		added, resolved := n.parked.Wait(), n.handles.Changed()
		var err error
		if !moved {
			err = n.moveParked(ctx)
			moved = err == nil
		}
		if err = errors.Join(err, n.releaseParked(ctx)); err != nil {
			retry.Sleep(ctx, err)
			continue
		}
		retry.Reset()
		wait := retryParked
		if n.parked.Len() == 0 {
			resolved, wait = nil, time.Hour
		}
		timer := time.NewTimer(wait)
		select {
		case <-added:
		case <-resolved:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// moveParked repeats the parked pushes of repositories that the option owners gives to
// somebody else since they were parked.
func (n *Notifier) moveParked(ctx context.Context) error {
	for _, handle := range n.parked.Handles() {
		for _, p := range n.parked.Of(handle) {
			if n.owners.Of(p.Repository()).Handle == handle {
				continue
			}
			if err := n.repeat(ctx, p, ""); err != nil {
				return err
			}
			if err := n.parked.Remove(handle, p.Seq); err != nil {
				return err
			}
		}
	}
	return nil
}

// releaseParked repeats the parked pushes of each handle that is resolved by now, and
// gives up those that are parked for too long. An error with one handle does not hold up
// the others.
func (n *Notifier) releaseParked(ctx context.Context) error {
	var failed error
	for _, handle := range n.parked.Handles() {
		if err := errors.Join(ctx.Err(), n.space()); err != nil {
			return err
		}
		var err error
		if did, known := n.handles.Cached(handle); known {
			err = n.repeatParked(ctx, handle, did)
		} else {
			err = n.expireParked(handle)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("parked pushes of %s: %w", handle, err))
		}
	}
	return failed
}

// repeatParked repeats the pushes of a handle.
func (n *Notifier) repeatParked(ctx context.Context, handle, did string) error {
	did, err := n.parked.Resolve(handle, did)
	if err != nil {
		return err
	}
	of := n.parked.Of(handle)
	seqs := make([]uint64, 0, len(of))
	for _, p := range of {
		if err := n.repeat(ctx, p, did); err != nil {
			return err
		}
		seqs = append(seqs, p.Seq)
	}
	if err := n.parked.Remove(handle, seqs...); err != nil {
		return err
	}
	n.log.Info("the handle of an owner is resolved", "handle", handle, "did", did, "pushes", len(seqs))
	return n.parked.Done(handle)
}

// repeat appends a parked push to the journal again, with the owner that the repository
// has by now: did, if it still belongs to the same handle. It is neither counted nor
// announced again, and keeps the keys of its records.
func (n *Notifier) repeat(ctx context.Context, parked parked.Push, did string) error {
	p, err := n.parked.Get(parked.Handle, parked.Seq)
	if errors.Is(err, state.ErrNotFound) {
		return nil // the image was deleted meanwhile
	}
	if err != nil {
		return err
	}
	e, err := event.Decode(p.Event)
	if errors.Is(err, event.ErrNewer) {
		return err
	}
	if err != nil {
		return n.giveUp(pushesOf(records.Name), p.Seq, p.Event, err)
	}
	owner := n.owners.Of(e.Repository)
	if owner.Handle == p.Handle {
		owner = owners.Owner{DID: did}
	}
	e.UserDID, e.OwnerHandle = owner.DID, owner.Handle
	e.Origin = cmp.Or(e.Origin, p.Seq)
	e.Tag, e.Class = "", ""
	payload, err := e.Encode()
	if err != nil {
		return err
	}
	_, order, _ := n.clock.Reserve(1)
	seq, err := n.journal.Append(ctx, journal.Pushes, uint64(order), payload)
	if err == nil {
		n.noteDecoded(seq, e)
	}
	return err
}

// expireParked gives up the pushes that have waited for a handle for too long.
func (n *Notifier) expireParked(handle string) error {
	for _, known := range n.parked.Of(handle) {
		if n.now().Sub(known.Since) < parked.GiveUpAfter {
			continue
		}
		p, err := n.parked.Get(handle, known.Seq)
		if err == nil {
			err = n.giveUp(pushesOf(records.Name), p.Seq, p.Event, fmt.Errorf("the handle %s of its owner could not be resolved for %d hours; "+
				"once it can be, `tidings backfill` writes the records", handle, int(parked.GiveUpAfter.Hours())))
		}
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if err := n.parked.Remove(handle, known.Seq); err != nil {
			return err
		}
	}
	return nil
}
