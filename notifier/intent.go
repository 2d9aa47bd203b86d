package notifier

import (
	"context"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// An Intent is a push that is on its way into the registry's storage. It ends
// in Complete or Abandon; one that a crash leaves open is settled at start.
type Intent struct {
	n       *Notifier
	entry   journal.Intent
	mark    uint64
	payload []byte
	event   *Event
}

// Intend notes that a manifest is about to be stored. If it fails, nothing may
// be stored: the push could not be recorded.
func (n *Notifier) Intend(ctx context.Context, p Push) (*Intent, error) {
	info, err := describe(p.MediaType, p.Payload)
	if err != nil {
		return nil, err
	}
	e := &Event{
		Version:   eventVersion,
		ClockID:   n.Journal.ClockID(),
		TIDs:      len(layersOf(&info)),
		Actor:     p.Actor,
		RequestID: p.RequestID,
		Kind:      kindOf(&info, p.Tag),
		Class:     counter.Push,
		NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository:     p.Repository,
			Tag:            p.Tag,
			UserDID:        n.Owner,
			ManifestDigest: p.Digest,
			Operation:      opPush,
			Manifest:       info,
		},
	}
	for _, m := range info.Manifests {
		e.Children = append(e.Children, m.Digest)
	}
	e.TID = n.clock.reserve(1 + e.TIDs)
	e.Time = time.UnixMicro(e.TID).UTC()
	payload, err := e.encode()
	if err != nil {
		return nil, err
	}
	in := &Intent{n: n, mark: uint64(e.TID) + uint64(e.TIDs), payload: payload, event: e}
	if in.entry, err = n.Journal.Begin(ctx, in.mark, payload); err != nil {
		n.Metrics.event(opPush, "refused")
		return nil, err
	}
	return in, nil
}

// Complete makes the push a fact. When it returns nil the event is on disk and
// will reach every sink.
func (i *Intent) Complete(ctx context.Context) error {
	seq, err := i.n.Journal.Complete(ctx, i.entry, i.mark, i.payload)
	if err != nil {
		i.n.Metrics.event(opPush, "refused")
		return err
	}
	i.n.recent.add(seq, i.event)
	// The children of a pushed index are known from now on.
	i.n.Rule.Class(counter.Request{Method: http.MethodPut, Repository: i.event.Repository, Children: i.event.Children})
	i.n.Metrics.event(opPush, "recorded")
	i.n.log.Info("pushed", "repository", i.event.Repository, "tag", i.event.Tag, "digest", i.event.ManifestDigest, "kind", i.event.Kind)
	return nil
}

// Abandon notes that the push did not happen.
func (i *Intent) Abandon() {
	i.n.Metrics.event(opPush, "abandoned")
	if err := i.n.Journal.Abandon(i.entry); err != nil {
		// It stays open and is settled against storage at the next start.
		i.n.log.Warn("a push that did not happen could not be noted as such", "repository", i.event.Repository, "err", err)
	}
}

// Delete records that a manifest or a tag was removed.
func (n *Notifier) Delete(ctx context.Context, d Delete) error {
	e := &Event{
		Version:   eventVersion,
		TID:       n.clock.reserve(1),
		ClockID:   n.Journal.ClockID(),
		Actor:     d.Actor,
		RequestID: d.RequestID,
		NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository:     d.Repository,
			Tag:            d.Tag,
			UserDID:        n.Owner,
			ManifestDigest: d.Digest,
			Operation:      opDelete,
		},
	}
	if d.Tag != "" {
		e.Operation = opUntag
	}
	e.Time = time.UnixMicro(e.TID).UTC()
	payload, err := e.encode()
	if err != nil {
		return err
	}
	if _, err := n.Journal.Append(ctx, journal.Pushes, uint64(e.TID), payload); err != nil {
		n.Metrics.event(e.Operation, "lost")
		return err
	}
	n.Metrics.event(e.Operation, "recorded")
	return nil
}

// Pull records an answer that is about to go out. It fails nothing: what could
// not be recorded is a number in the metrics.
func (n *Notifier) Pull(p Pull) {
	class, tag, fresh := n.Rule.Class(counter.Request{
		Method:     p.Method,
		Repository: p.Repository,
		Tag:        p.Tag,
		Digest:     p.Digest,
		Kind:       p.countedAs(),
		Children:   p.Children,
		Client:     p.Client,
		UserAgent:  p.UserAgent,
		Actor:      p.Actor,
	})
	now := n.Now()
	e := Event{
		Version:  eventVersion,
		Time:     now.UTC(),
		Class:    class,
		Children: fresh,
		NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository:     p.Repository,
			Tag:            tag,
			UserDID:        n.Owner,
			ManifestDigest: p.Digest,
			Operation:      opPull,
			Manifest:       lexicon.ManifestInfo{MediaType: p.MediaType},
		},
	}
	if _, err := n.Journal.Append(context.Background(), journal.Pulls, uint64(now.UnixMicro()), e.encodePull()); err != nil {
		n.Metrics.event(opPull, "lost")
		return
	}
	n.Metrics.event(opPull, "recorded")
}

// countedAs tells the counting rule what was pulled.
func (p *Pull) countedAs() string {
	return kindOfParts(p.MediaType, "", p.ConfigMediaType, p.Tag, func(yield func(string) bool) {
		for i := range p.Layers {
			if !yield(p.Layers[i].MediaType) {
				return
			}
		}
	}).countedAs(p.Tag)
}

// A Storage answers whether a push that a crash interrupted had happened.
type Storage interface {
	// Has reports whether the tag points at the digest or, without a tag,
	// whether the repository has the manifest.
	Has(ctx context.Context, repository, tag, digest string) (bool, error)
}

// Settle ends every intent that an earlier process left open: a push whose
// manifest is in storage, under its tag, is recorded, any other is abandoned.
// One that storage gives no answer for stays open.
func (n *Notifier) Settle(ctx context.Context, storage Storage) error {
	for _, u := range n.Journal.Unsettled() {
		e, err := decodeEvent(u.Payload)
		if err != nil {
			return err
		}
		in := &Intent{n: n, entry: u.Intent, mark: u.Mark, payload: u.Payload, event: e}
		has, err := storage.Has(ctx, e.Repository, e.Tag, e.ManifestDigest)
		if err != nil {
			n.log.Warn("a push that a crash interrupted stays open: storage gives no answer", "repository", e.Repository, "tag", e.Tag, "digest", e.ManifestDigest, "err", err)
			continue
		}
		if !has {
			in.Abandon()
			continue
		}
		if err := in.Complete(ctx); err != nil {
			return err
		}
		n.log.Info("a push that a crash interrupted was found in storage and is recorded", "repository", e.Repository, "tag", e.Tag, "digest", e.ManifestDigest)
	}
	return nil
}
