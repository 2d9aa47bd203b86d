package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// resolveInterval is how often open intents are tried that storage gave no answer for.
const resolveInterval = 30 * time.Second

// runResolver resolves intents until ctx ends.
func (n *Notifier) runResolver(ctx context.Context) error {
	for ctx.Err() == nil {
		released := n.released.Wait()
		if err := n.resolveIntents(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("some interrupted pushes or deletes can't be resolved yet", "open", len(n.journal.Unresolved()), "error", err)
		}
		retry := time.NewTimer(resolveInterval)
		select {
		case <-ctx.Done():
		case <-released:
		case <-retry.C:
		}
		retry.Stop()
	}
	return nil
}

// resolveIntents resolves every open intent that has no request any more: see Intent.
// A push is completed if its manifest is in storage, a delete if its manifest or tag is
// not. The error is the last one of those that remain open.
func (n *Notifier) resolveIntents(ctx context.Context) error {
	n.resolving.Lock()
	defer n.resolving.Unlock()
	var failed error
	for _, open := range n.journal.Unresolved() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := n.resolveIntent(ctx, open); err != nil {
			failed = err
		}
	}
	return failed
}

func (n *Notifier) resolveIntent(ctx context.Context, open journal.OpenIntent) error {
	e, err := event.Decode(open.Payload)
	if errors.Is(err, event.ErrNewer) {
		return err
	}
	if err != nil {
		n.log.Error("an interrupted push or delete can't be decoded and is given up", "error", err)
		return n.journal.Abandon(open.Intent)
	}
	// The owner is the present one: if it has changed since, storage is compared with the ledger
	// at the same time, and records of the earlier owner would be written after that.
	owner := n.owners.Of(e.Repository)
	in := &Intent{n: n, entry: open.Intent, event: event.Event{
		Version: event.Version, Actor: e.Actor, RequestID: e.RequestID, OwnerHandle: owner.Handle,
		NotifyManifestInput: e.NotifyManifestInput,
	}}
	in.event.UserDID = owner.DID
	happened := false
	if n.storage != nil { // otherwise storage was in memory, and ended with the process
		if happened, err = in.happened(ctx); err != nil {
			return fmt.Errorf("%s of %s %s: %w", e.Operation, e.Repository, e.Tag+e.ManifestDigest, err)
		}
	}
	if !happened {
		return n.journal.Abandon(open.Intent)
	}
	if err := in.Complete(ctx); err != nil {
		return err
	}
	n.log.Info("an interrupted push or delete was found in storage and is recorded",
		"operation", e.Operation, "repository", e.Repository, "tag", e.Tag, "digest", e.ManifestDigest)
	return nil
}

// happened asks storage whether a push or delete took effect, and fills in what its
// event needs.
func (i *Intent) happened(ctx context.Context) (bool, error) {
	e, checked := &i.event, i.n.storage
	switch e.Operation {
	case event.OpDelete:
		has, err := checked.Has(ctx, e.Repository, e.ManifestDigest)
		return !has, err
	case event.OpUntag:
		_, err := checked.Tagged(ctx, e.Repository, e.Tag)
		if errors.Is(err, stored.ErrNotStored) {
			return true, nil
		}
		return false, err
	}
	mediaType, payload, err := checked.Manifest(ctx, e.Repository, e.ManifestDigest)
	if errors.Is(err, stored.ErrNotStored) || errors.Is(err, stored.ErrUnreadable) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e.Class = counts.Push
	if e.Tag != "" {
		target, err := checked.Tagged(ctx, e.Repository, e.Tag)
		if err != nil && !errors.Is(err, stored.ErrNotStored) {
			return false, err
		}
		if target != e.ManifestDigest {
			// The manifest was stored, and its tag was not set or has moved since. What
			// is stored gets its records, but there is no push to count or announce.
			e.Tag, e.Class = "", ""
		}
	}
	i.setManifest(mediaType, payload)
	return true, nil
}

// setManifest sets the manifest of a push to what storage has.
func (i *Intent) setManifest(mediaType string, payload []byte) {
	i.event.MediaType, i.manifest = mediaType, payload
	info, err := event.ReadManifest(mediaType, payload)
	if err != nil {
		return // the sinks report it
	}
	i.layers = len(info.Layers)
	i.children = event.ChildrenOf(&info)
}
