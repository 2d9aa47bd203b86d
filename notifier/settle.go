package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// settleEvery is how often open intents are looked at that storage gave no
// answer for.
const settleEvery = 30 * time.Second

// settle ends the intents that a crash or a failed request left open, as soon
// as storage gives an answer, until ctx ends.
func (n *Notifier) settle(ctx context.Context) error {
	for ctx.Err() == nil {
		released := n.released.listen()
		if err := n.Settle(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("interrupted pushes or deletes are still open", "open", len(n.Journal.Unsettled()), "err", err)
		}
		retry := time.NewTimer(settleEvery)
		select {
		case <-ctx.Done():
		case <-released:
		case <-retry.C:
		}
		retry.Stop()
	}
	return nil
}

// Settle ends every intent that nobody will complete any more. A push whose
// manifest is in storage is recorded, a delete whose manifest or tag is not, and
// any other is abandoned. The error is the last of those that are still open.
func (n *Notifier) Settle(ctx context.Context) error {
	n.settling.Lock()
	defer n.settling.Unlock()
	var failed error
	for _, u := range n.Journal.Unsettled() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := n.settleOne(ctx, u); err != nil {
			failed = err
		}
	}
	return failed
}

func (n *Notifier) settleOne(ctx context.Context, u journal.Unsettled) error {
	e, err := decodeEvent(u.Payload)
	if errors.Is(err, errNewer) {
		return err
	}
	if err != nil {
		n.log.Error("an interrupted push or delete can't be read and is given up", "err", err)
		return n.Journal.Abandon(u.Intent)
	}
	in := &Intent{n: n, entry: u.Intent, event: Event{
		Version: eventVersion, Actor: e.Actor, RequestID: e.RequestID, NotifyManifestInput: e.NotifyManifestInput,
	}}
	happened := false
	if n.Storage != nil { // else it is gone with the process
		if happened, err = in.happened(ctx); err != nil {
			return fmt.Errorf("%s of %s %s: %w", e.Operation, e.Repository, e.Tag+e.ManifestDigest, err)
		}
	}
	if !happened {
		return n.Journal.Abandon(u.Intent)
	}
	if err := in.Complete(ctx); err != nil {
		return err
	}
	n.log.Info("an interrupted push or delete was found in storage and is recorded",
		"operation", e.Operation, "repository", e.Repository, "tag", e.Tag, "digest", e.ManifestDigest)
	return nil
}

// happened asks storage whether a push or delete took place, and fills in what
// its event needs.
func (i *Intent) happened(ctx context.Context) (bool, error) {
	e, storage := &i.event, i.n.Storage
	switch e.Operation {
	case opDelete:
		has, err := storage.Has(ctx, e.Repository, e.ManifestDigest)
		return !has, err
	case opUntag:
		_, err := storage.Tagged(ctx, e.Repository, e.Tag)
		if errors.Is(err, ErrNotStored) {
			return true, nil
		}
		return false, err
	}
	mediaType, payload, err := storage.Manifest(ctx, e.Repository, e.ManifestDigest)
	if errors.Is(err, ErrNotStored) || errors.Is(err, errUnreadable) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e.Class = counter.Push
	if e.Tag != "" {
		at, err := storage.Tagged(ctx, e.Repository, e.Tag)
		if err != nil && !errors.Is(err, ErrNotStored) {
			return false, err
		}
		if at != e.ManifestDigest {
			// It was stored and its tag was not set, or went on to another: there
			// are records for what is stored, and no push to count or announce.
			e.Tag, e.Class = "", ""
		}
	}
	i.read(mediaType, payload)
	return true, nil
}

// read takes a stored manifest for that of the push.
func (i *Intent) read(mediaType string, payload []byte) {
	i.event.MediaType, i.manifest = mediaType, payload
	info, err := readManifest(mediaType, payload)
	if err != nil {
		return // the sinks tell
	}
	i.layers = len(info.Layers)
	for _, m := range info.Manifests {
		i.children = append(i.children, m.Digest)
	}
}
