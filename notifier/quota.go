package notifier

import (
	"context"
	"errors"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// limited returns the owner of a push that will count towards a limit, "" for other events and
// if the owner's handle is not resolved.
func (n *Notifier) limited(e *event.Event) (owner string) {
	if n.account == nil || n.quota.Tiers().None() || e.Operation != event.OpPush || e.Private() || !n.public(e.Name()) {
		return ""
	}
	owner = e.UserDID
	if e.OwnerHandle != "" {
		owner, _ = n.handles.Cached(e.OwnerHandle)
	}
	if owner == "" || !n.quota.Limited(owner) {
		return ""
	}
	return owner
}

// reservePush reserves the layers of a push that is about to be recorded. The error is a
// *quota.ExceededError.
func (n *Notifier) reservePush(ctx context.Context, e *event.Event, m func() *lexicon.ManifestInfo) (*quota.Reservation, error) {
	owner := n.limited(e)
	if owner == "" {
		return nil, nil
	}
	r, err := n.quota.Reserve(ctx, owner, recordedLayers(m()))
	var exceeded *quota.ExceededError
	if errors.As(err, &exceeded) {
		n.metrics.Event(e.Operation, "exceeded")
		n.log.Warn("push refused: the owner's quota is exceeded", "repository", e.Name(), "digest", e.ManifestDigest,
			"owner", exceeded.Owner, "tier", exceeded.Tier, "used", exceeded.Used, "limit", exceeded.Limit, "push", exceeded.Push)
	}
	return r, err
}

// recordedLayers are the layers of a manifest that have records.
func recordedLayers(m *lexicon.ManifestInfo) []usage.Layer {
	list, _ := event.LayersOf(m)
	layers := make([]usage.Layer, len(list))
	for i, l := range list {
		layers[i] = usage.Layer{Digest: l.Digest, Size: l.Size}
	}
	return layers
}

// manifestOf is the manifest of the layers that the registry has parsed.
func manifestOf(layers []v1.Descriptor) *lexicon.ManifestInfo {
	var m lexicon.ManifestInfo
	for _, l := range layers {
		m.Layers = append(m.Layers, lexicon.Descriptor{MediaType: l.MediaType, Digest: l.Digest.String(), Size: l.Size, URLs: l.URLs})
	}
	m = event.FilterManifest(m)
	return &m
}

// noteFreeing informs the gate of a recorded event that may free bytes. A delete or a purge may
// do so for owners that the repository had before.
func (n *Notifier) noteFreeing(seq uint64, e *event.Event) {
	switch {
	case n.account == nil:
	case e.Operation == event.OpDelete, e.Operation == event.OpPurge:
		n.quota.Freeing(seq, "")
	case e.Operation == event.OpForget, e.Operation == event.OpDisown, e.Operation == event.OpForgetOwner, e.Operation == event.OpPush && e.Private():
		n.quota.Freeing(seq, e.UserDID)
	}
}

// noteRecorded informs the gate of an event that was recorded without a check. If it is a push,
// m returns its manifest.
func (n *Notifier) noteRecorded(seq uint64, e *event.Event, m func() *lexicon.ManifestInfo) {
	n.noteFreeing(seq, e)
	if owner := n.limited(e); owner != "" {
		n.quota.Add(owner, recordedLayers(m())).Record(seq)
	}
}

// noteDecoded is noteRecorded for an event that has its manifest.
func (n *Notifier) noteDecoded(seq uint64, e *event.Event) {
	n.noteRecorded(seq, e, func() *lexicon.ManifestInfo { return &e.Manifest })
}

// noteAppended is noteRecorded with the bytes of the manifest.
func (n *Notifier) noteAppended(seq uint64, e *event.Event, manifest []byte) {
	n.noteRecorded(seq, e, func() *lexicon.ManifestInfo {
		m, _ := event.ReadManifest(e.MediaType, manifest)
		return &m
	})
}

// Quota returns the usage and the limit of an owner. Only records count.
func (n *Notifier) Quota(owner string) (lexicon.Quota, error) {
	total, err := n.usage.Total(owner)
	q := lexicon.Quota{UserDID: owner, UniqueBlobs: total.Blobs, TotalSize: total.Bytes}
	if tier, limit, limited := n.quota.Tiers().Of(owner); limited {
		q.Limit, q.Tier = &limit, tier
	}
	return q, err
}

// loadQuota makes the gate read the usage, and informs it of the events that the last process
// recorded and did not write.
func (n *Notifier) loadQuota(ctx context.Context) error {
	if n.account == nil || n.quota.Tiers().None() {
		return nil
	}
	n.stores.LoadUsage(ctx)
	err := n.resumeQuota(ctx)
	if err == nil {
		n.quota.Resumed()
	} else if ctx.Err() == nil {
		n.log.Error("pending events can't be read; no push is refused because of a quota until the next start", "error", err)
	}
	return nil
}

// resumeQuota informs the gate of pending events of the last process.
func (n *Notifier) resumeQuota(ctx context.Context) error {
	box := pushesOf(records.Name)
	for after := n.journal.Cursor(journal.Pushes, records.Name); after < n.before; {
		entries, err := n.journal.Read(journal.Pushes, after, handleEvents, handleBytes)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, entry := range entries {
			if after = entry.Seq; after > n.before {
				return nil
			}
			e, err := n.readFor(box, entry)
			if errors.Is(err, errLetters) {
				return err
			}
			if err != nil {
				continue // the sink reports it
			}
			n.noteDecoded(entry.Seq, e.Event)
		}
	}
	return nil
}
