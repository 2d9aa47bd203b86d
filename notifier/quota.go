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

// limited reports whether an event is a push that will count towards a limit. One whose
// owner is not known yet is not checked.
func (n *Notifier) limited(e *event.Event) bool {
	return n.account != nil && e.UserDID != "" && e.Operation == event.OpPush && !e.Private() && n.public(e.Name()) && n.quota.Limited(e.UserDID)
}

// reservePush reserves the layers of a push that is about to be recorded. The error is a
// *quota.ExceededError.
func (n *Notifier) reservePush(ctx context.Context, e *event.Event, m *lexicon.ManifestInfo) (*quota.Reservation, error) {
	if !n.limited(e) {
		return nil, nil
	}
	r, err := n.quota.Reserve(ctx, e.UserDID, recordedLayers(m))
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

// noteFreeing informs the gate of a recorded event that may free bytes.
func (n *Notifier) noteFreeing(seq uint64, e *event.Event) {
	switch {
	case n.account == nil:
	case e.Operation == event.OpDelete:
		n.quota.Freeing(seq, "", e.ManifestDigest)
	case e.Operation == event.OpForgetOwner, e.Operation == event.OpPurge:
		n.quota.Freeing(seq, e.UserDID, "")
	case e.Operation == event.OpForget, e.Operation == event.OpDisown, e.Operation == event.OpPush && e.Private():
		n.quota.Freeing(seq, e.UserDID, e.ManifestDigest)
	}
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
	if err := n.quota.Load(ctx); err != nil {
		if ctx.Err() == nil {
			n.log.Error("the usage of owners can't be read; no push is refused because of a quota until the next start", "error", err)
		}
		return nil
	}
	defer n.quota.Loaded()
	for after := n.journal.Cursor(journal.Pushes, records.Name); after < n.before && ctx.Err() == nil; {
		entries, err := n.journal.Read(journal.Pushes, after, handleEvents, handleBytes)
		if err != nil {
			n.log.Warn("pending pushes can't be read; they do not count towards quotas until they are written", "error", err)
			return nil
		}
		if len(entries) == 0 {
			return nil
		}
		for _, entry := range entries {
			if after = entry.Seq; after > n.before {
				return nil
			}
			e, err := event.Decode(entry.Payload)
			if err != nil {
				continue // the sink reports it
			}
			n.noteFreeing(entry.Seq, e)
			if n.limited(e) {
				n.quota.Add(e.UserDID, recordedLayers(&e.Manifest)).Record(entry.Seq)
			}
		}
	}
	return nil
}
