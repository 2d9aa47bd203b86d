package notifier

import (
	"bytes"
	"context"
	"net/http"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/quota"
)

// How pushes and deletes are recorded
//
// The registry's storage and the journal can't change in one transaction. So each push
// and each delete has an intent in the journal:
//
//  1. Intend makes the intent durable: the event without the manifest. If that fails,
//     the request is refused and storage is not touched.
//  2. The registry changes storage.
//  3. Complete replaces the intent by the event, in one journal entry. The client gets
//     its response after this is durable.
//
// If the registry knows that storage did not change, it calls Abandon instead of 3. If
// it does not know, it calls Release.
//
// Crash cases: a crash before 1 leaves nothing, and the client has no response. After a
// crash between 1 and 3 the intent is open; so it is after Release, and after an error
// of Complete, which may or may not have been written. An open intent is resolved (see
// resolve.go) by asking storage whether the push or delete took effect: if so, it is
// completed, and otherwise it is abandoned. So an event may be recorded for a push whose
// client got an error, but never for one that storage does not have, and no push that
// storage has is lost.

// An Intent is a push or delete that is on its way through the registry's storage.
// Exactly one of Complete, Abandon and Release ends it.
type Intent struct {
	n     *Notifier
	entry journal.Intent
	event event.Event

	// Of a push:
	manifest  []byte
	layers    int      // number of layers, with repetitions
	children  []string // digests that an index lists
	client    string
	userAgent string
	reserved  *quota.Reservation
}

// Intend records that a manifest is about to be stored. If it returns an error, the
// manifest must not be stored, since its push could not be recorded or, after a
// *quota.ExceededError, does not fit into its owner's quota.
func (n *Notifier) Intend(ctx context.Context, p Push) (*Intent, error) {
	owner := n.owners.Of(p.Repository)
	in := &Intent{
		n: n,
		event: event.Event{
			Version:     event.Version,
			Actor:       p.Actor,
			RequestID:   p.RequestID,
			Class:       counts.Push,
			MediaType:   p.MediaType,
			OwnerHandle: owner.Handle,
			NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository:     p.Repository,
				Tag:            p.Tag,
				UserDID:        owner.DID,
				ManifestDigest: p.Digest,
				Operation:      event.OpPush,
			},
		},
		manifest: p.Payload, layers: p.Layers, children: p.Children, client: p.Client, userAgent: p.UserAgent,
	}
	var err error
	in.reserved, err = n.reservePush(ctx, &in.event, func() *lexicon.ManifestInfo { return manifestOf(p.Listed) })
	if err != nil {
		return nil, err
	}
	if err = in.begin(ctx); err != nil {
		in.reserved.Release()
	}
	return in, err
}

// IntendDelete records that a manifest or tag is about to be deleted. If it returns an
// error, it must not be deleted.
func (n *Notifier) IntendDelete(ctx context.Context, d Delete) (*Intent, error) {
	owner := n.owners.Of(d.Repository)
	in := &Intent{
		n: n,
		event: event.Event{
			Version:     event.Version,
			Actor:       d.Actor,
			RequestID:   d.RequestID,
			OwnerHandle: owner.Handle,
			NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository:     d.Repository,
				Tag:            d.Tag,
				UserDID:        owner.DID,
				ManifestDigest: d.Digest,
				Operation:      event.OpDelete,
			},
		},
	}
	if d.Tag != "" {
		in.event.Operation = event.OpUntag
	}
	return in, in.begin(ctx)
}

// begin writes the intent. It leaves out the manifest, which storage has if the intent
// is completed later.
func (i *Intent) begin(ctx context.Context) error {
	payload, err := i.event.Encode()
	if err != nil {
		return err
	}
	if i.entry, err = i.n.journal.Begin(ctx, 0, payload); err != nil {
		i.n.metrics.Event(i.event.Operation, "refused")
		return err
	}
	return nil
}

// Complete records the event. When it returns nil, the event is durable and will reach
// every sink. After an error this is not known, and the intent is resolved later.
func (i *Intent) Complete(ctx context.Context) error {
	e := &i.event
	e.TIDs = i.layers
	e.Time, e.TID, e.ClockID = i.n.clock.Reserve(1 + e.TIDs)
	e.Time = e.Time.UTC()
	var payload []byte
	if e.Operation == event.OpPush {
		payload = e.EncodePushed(i.manifest)
	} else {
		var err error
		if payload, err = e.Encode(); err != nil {
			i.Release()
			return err
		}
	}
	seq, err := i.n.journal.Complete(ctx, i.entry, uint64(e.TID)+uint64(e.TIDs), payload)
	if err != nil {
		i.n.metrics.Event(e.Operation, "refused")
		i.Release()
		return err
	}
	i.n.metrics.Event(e.Operation, "recorded")
	i.noteQuota(seq)
	switch e.Operation {
	case event.OpPush:
		i.n.recent.Add(seq, payload)
		i.updateClassifier()
		i.n.log.Info("pushed", "repository", e.Repository, "tag", e.Tag, "digest", e.ManifestDigest)
	case event.OpDelete:
		i.n.classifier.Learn(classify.IndexDeleted(e.Name(), e.ManifestDigest))
	}
	return nil
}

// noteQuota notes the sequence number of the event. An intent that an earlier request left
// open has no reservation.
func (i *Intent) noteQuota(seq uint64) {
	if i.reserved == nil {
		i.n.noteAppended(seq, &i.event, i.manifest)
		return
	}
	i.n.noteFreeing(seq, &i.event)
	i.reserved.Record(seq)
	i.reserved = nil
}

// maxParsed is the size in bytes up to which a manifest is parsed while its client
// waits, if it has to be.
const maxParsed = 64 << 10

// updateClassifier gives the classifier at once what decides how pulls of the manifest are
// counted: its children, who pushed it, and whether it describes another image.
func (i *Intent) updateClassifier() {
	e, classifier := &i.event, i.n.classifier
	classifier.Class(classify.Request{
		Method: http.MethodPut, Repository: e.Repository, Tag: e.Tag, Digest: e.ManifestDigest, Children: i.children,
		Client: i.client, UserAgent: i.userAgent,
	})
	if len(i.manifest) > maxParsed || !bytes.Contains(i.manifest, []byte("artifactType")) {
		return // the registry's parsed manifest shows it, or the counter will
	}
	info, err := event.ReadManifest(e.MediaType, i.manifest)
	if err == nil && event.KindOf(&info, e.Tag).Supporting() {
		classifier.LearnArtifact(e.Repository, e.ManifestDigest)
	}
}

// Abandon records that the push or delete did not happen.
func (i *Intent) Abandon() {
	i.n.metrics.Event(i.event.Operation, "abandoned")
	i.reserved.Release()
	if err := i.n.journal.Abandon(i.entry); err != nil {
		i.n.log.Warn("can't record that a push or delete did not happen; storage is asked later", "repository", i.event.Repository, "error", err)
		i.Release()
	}
}

// Release leaves the intent open, to be resolved.
func (i *Intent) Release() {
	i.reserved.Release()
	i.n.journal.LeaveOpen(i.entry)
	i.n.released.Send()
}
