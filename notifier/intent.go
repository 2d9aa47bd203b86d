package notifier

import (
	"bytes"
	"context"
	"net/http"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// An Intent is a push or a delete that is on its way through the registry's
// storage. It is in the journal, small, before storage is touched, and ends in
// one of three ways: Complete, once it is known to have happened, Abandon, once
// it is known not to, or Release, when nobody knows. One that is released, or
// left open by a crash, is settled by a look at storage: see Settle.
type Intent struct {
	n     *Notifier
	entry journal.Intent
	event Event

	manifest []byte   // of a push
	layers   int      // in it, at most
	children []string // that it lists
	client   string   // that pushes it, and with what
	agent    string
}

// Intend notes that a manifest is about to be stored. If it fails, nothing may
// be stored: the push could not be recorded.
func (n *Notifier) Intend(ctx context.Context, p Push) (*Intent, error) {
	in := &Intent{
		n: n,
		event: Event{
			Version:   eventVersion,
			Actor:     p.Actor,
			RequestID: p.RequestID,
			Class:     counter.Push,
			MediaType: p.MediaType,
			NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository:     p.Repository,
				Tag:            p.Tag,
				UserDID:        n.Owner,
				ManifestDigest: p.Digest,
				Operation:      opPush,
			},
		},
		manifest: p.Payload, layers: p.Layers, children: p.Children, client: p.Client, agent: p.UserAgent,
	}
	return in, in.begin(ctx)
}

// IntendDelete notes that a manifest or a tag is about to be removed. If it
// fails, nothing may be removed.
func (n *Notifier) IntendDelete(ctx context.Context, d Delete) (*Intent, error) {
	in := &Intent{
		n: n,
		event: Event{
			Version:   eventVersion,
			Actor:     d.Actor,
			RequestID: d.RequestID,
			NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository:     d.Repository,
				Tag:            d.Tag,
				UserDID:        n.Owner,
				ManifestDigest: d.Digest,
				Operation:      opDelete,
			},
		},
	}
	if d.Tag != "" {
		in.event.Operation = opUntag
	}
	return in, in.begin(ctx)
}

// begin writes the intent to the journal: the event without the manifest, which
// storage has if the event is to be made later.
func (i *Intent) begin(ctx context.Context) error {
	payload, err := i.event.encode()
	if err != nil {
		return err
	}
	if i.entry, err = i.n.Journal.Begin(ctx, 0, payload); err != nil {
		i.n.Metrics.event(i.event.Operation, "refused")
		return err
	}
	return nil
}

// Complete makes the push or delete a fact. When it returns nil the event is on
// disk and will reach every sink. After an error it is not known whether it
// will; storage decides later.
func (i *Intent) Complete(ctx context.Context) error {
	e := &i.event
	e.TIDs = i.layers
	e.Time, e.TID, e.ClockID = i.n.clock.reserve(1 + e.TIDs)
	e.Time = e.Time.UTC()
	var payload []byte
	if e.Operation == opPush {
		payload = e.encodePushed(i.manifest)
	} else {
		var err error
		if payload, err = e.encode(); err != nil {
			i.Release()
			return err
		}
	}
	seq, err := i.n.Journal.Complete(ctx, i.entry, uint64(e.TID)+uint64(e.TIDs), payload)
	if err != nil {
		i.n.Metrics.event(e.Operation, "refused")
		i.Release()
		return err
	}
	i.n.Metrics.event(e.Operation, "recorded")
	switch e.Operation {
	case opPush:
		i.n.recent.add(seq, payload)
		i.pushed()
		i.n.log.Info("pushed", "repository", e.Repository, "tag", e.Tag, "digest", e.ManifestDigest)
	case opDelete:
		i.n.Rule.Learn(counter.IndexDeleted(e.Name(), e.ManifestDigest))
	}
	return nil
}

// maxRead is the size in bytes of a manifest that is read while its client waits,
// if it has to be.
const maxRead = 64 << 10

// pushed makes known at once what decides how the manifest's pulls count: its
// children, who has pushed it, and whether it says something about another image.
func (i *Intent) pushed() {
	e, rule := &i.event, i.n.Rule
	rule.Class(counter.Request{
		Method: http.MethodPut, Repository: e.Repository, Tag: e.Tag, Digest: e.ManifestDigest, Children: i.children,
		Client: i.client, UserAgent: i.agent,
	})
	if len(i.manifest) > maxRead || !bytes.Contains(i.manifest, []byte("artifactType")) {
		return // the registry's own reading says it, or the counters will
	}
	info, err := readManifest(e.MediaType, i.manifest)
	if err == nil && kindOf(&info, e.Tag).supporting() {
		rule.LearnArtifact(e.Repository, e.ManifestDigest)
	}
}

// Abandon notes that the push or delete did not happen.
func (i *Intent) Abandon() {
	i.n.Metrics.event(i.event.Operation, "abandoned")
	if err := i.n.Journal.Abandon(i.entry); err != nil {
		i.n.log.Warn("cannot note that a push or delete did not happen; storage is asked later", "repository", i.event.Repository, "err", err)
		i.Release()
	}
}

// Release leaves it to storage what became of the push or delete.
func (i *Intent) Release() {
	i.n.Journal.Release(i.entry)
	i.n.released.ring()
}
