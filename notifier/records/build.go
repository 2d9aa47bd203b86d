package records

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A builder builds a Batch.
type builder struct {
	s       *Sink
	batch   *Batch
	changes map[string]int    // index in batch by owner and digest
	reasons map[uint64]string // why an event makes no records although it might be expected to
	writes  int
	rows    state.Batch     // is committed together with batch
	parked  map[uint64]bool // events that rows parks

	forgetting position // after batch
	purging    purging  // after batch
}

// reasonGone is why an image that was deleted before its push was processed has no records.
const reasonGone = "not in storage any more"

// errNextBatch is returned for an event that does not fit into this batch.
var errNextBatch = errors.New("event belongs to the next batch")

// build puts as many events as fit, at least one, into a batch.
func (s *Sink) build(events []event.Sequenced, stored []bool) (*builder, int, error) {
	events = events[:len(stored)]
	b := &builder{s: s, batch: &Batch{}, changes: map[string]int{}, reasons: map[uint64]string{}, parked: map[uint64]bool{}}
	for i, e := range events {
		switch e.Operation {
		case event.OpForgetOwner:
			done, err := b.forgetOwner(e)
			return b, i + done, err
		case event.OpPurge:
			done, err := b.purge(e)
			return b, i + done, err
		}
		err := b.event(e, stored[i])
		var permanent *sink.PermanentError
		if errors.Is(err, errNextBatch) {
			return b, i, nil
		}
		if errors.As(err, &permanent) {
			b.reasons[e.Seq] = permanent.Error()
			err = s.GiveUp(e.Seq, permanent)
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return b, len(events), nil
}

func (b *builder) event(e event.Sequenced, stored bool) error {
	switch {
	case !b.s.affects(&e):
		if e.Operation == event.OpPush && e.Plan.Odd != nil && b.s.Public(e.Name()) {
			b.reasons[e.Seq] = e.Plan.Odd.String()
			b.s.Metrics.Odd(e.Plan.Odd)
		}
	case e.Operation == event.OpForget:
		return b.forget(e)
	case e.Operation == event.OpDisown:
		return b.disown(e)
	case e.Private():
		return b.hide(e)
	case e.Operation == event.OpPush && stored:
		return b.push(e)
	case e.Operation == event.OpPush:
		b.reasons[e.Seq] = reasonGone
	case !stored:
		return b.delete(e)
	}
	return nil
}

// entry is a manifest's ledger entry as it will be after the batch; nil: none.
func (b *builder) entry(owner, digest string) (*ledger.Entry, error) {
	if i, ok := b.changes[owner+"\x00"+digest]; ok {
		return b.batch.Manifests[i].After, nil
	}
	e, ok, err := b.s.ledger.Get(owner, digest)
	if err != nil || !ok {
		return nil, err
	}
	return &e, nil
}

// owners are the owners with an entry for the manifest, before or after the batch.
func (b *builder) owners(digest string) ([]string, error) {
	entries, err := b.s.ledger.Owners(digest)
	if err != nil {
		return nil, err
	}
	for _, m := range b.batch.Manifests {
		if m.Digest == digest {
			entries[m.Owner] = ledger.Entry{}
		}
	}
	owners := make([]string, 0, len(entries))
	for owner := range entries {
		owners = append(owners, owner)
	}
	slices.Sort(owners)
	return owners, nil
}

// push adds the claim of the event's repository to the manifest's entry, and
// creates entry and records if there is none. Claims under another owner, from
// before the option owner was changed, are removed.
func (b *builder) push(e event.Sequenced) error {
	if e.Unreadable != nil {
		return &sink.PermanentError{Err: e.Unreadable}
	}
	name := e.Name()
	if purged, err := b.purged(e); purged || err != nil {
		return err
	}
	if e.Class == "" { // no push, but a manifest that was found in storage
		if private, err := b.s.Private.Since(name, e.ManifestDigest, e.Seq); private || err != nil {
			return err
		}
	}
	if e.UserDID == "" {
		did, known := b.s.Resolved(e.OwnerHandle)
		if !known {
			return b.park(e)
		}
		e.Event = e.OwnedBy(did)
	}
	if !e.Foreign {
		if err := b.removeClaims(e, func(owner string) bool { return owner != e.UserDID }); err != nil {
			return err
		}
	}
	entry, err := b.entry(e.UserDID, e.ManifestDigest)
	if err != nil {
		return err
	}
	if entry != nil {
		after := entry.With(name)
		return b.add(e, e.UserDID, entry, &after, nil)
	}
	if forgotten, err := b.wasForgotten(e); forgotten || err != nil {
		return err
	}
	layers := e.Plan.Records
	if len(layers) > e.TIDs {
		return &sink.PermanentError{Err: fmt.Errorf("the manifest lists %d layers and its push reserved keys for %d", len(layers), e.TIDs)}
	}
	after := ledger.Entry{First: e.TID, ClockID: e.ClockID, Records: len(layers)}.With(name)
	writes, err := Creates(e.UserDID, e.ManifestDigest, layers, after)
	if err != nil {
		return &sink.PermanentError{Err: err}
	}
	if err := b.add(e, e.UserDID, nil, &after, writes); err != nil {
		return err
	}
	b.batch.Manifests[b.changes[e.UserDID+"\x00"+e.ManifestDigest]].Odd = e.Plan.Odd
	return nil
}

// park parks a push until the handle of its owner is resolved.
func (b *builder) park(e event.Sequenced) error {
	encoded, err := e.Encode()
	if err != nil {
		return &sink.PermanentError{Err: err}
	}
	err = b.s.Parked.Put(&b.rows, &parked.Push{
		Seq: e.Seq, Handle: e.OwnerHandle, Image: parked.Image(e.Name(), e.ManifestDigest), Since: b.s.Now(), Event: encoded,
	})
	if errors.Is(err, parked.ErrFull) {
		return &sink.PermanentError{Err: err}
	}
	b.parked[e.Seq] = err == nil
	return err
}

// unpark removes the parked pushes of an image that was deleted.
func (b *builder) unpark(e event.Sequenced) error {
	for _, p := range b.s.Parked.Find(parked.Image(e.Name(), e.ManifestDigest)) {
		if p.Seq > e.Seq {
			continue
		}
		if err := pushrow.Put(&b.rows, p.Seq, pushrow.RecordsPart, pushrow.Records{Reason: reasonGone}); err != nil {
			return err
		}
		if err := b.s.Parked.Remove(p.Handle, p.Seq); err != nil {
			return err
		}
	}
	return nil
}

// delete removes the claims of the event's repository, also those from before the
// option owner was changed. An event without a repository is about an entry that
// reconcile found in none: only that owner's claim is removed.
func (b *builder) delete(e event.Sequenced) error {
	if err := b.unpark(e); err != nil {
		return err
	}
	if err := b.s.Purged.UnmarkImage(&b.rows, e.Name(), e.ManifestDigest); err != nil {
		return err
	}
	return b.removeClaims(e, func(owner string) bool { return e.Repository != "" || owner == e.UserDID })
}

// hide removes the claim of a push that is private. If the entry was rebuilt, it
// does not know its repositories, and the claim that stands for them is removed.
func (b *builder) hide(e event.Sequenced) error {
	e.Event = e.AsPublic()
	entry, err := b.entry(e.UserDID, e.ManifestDigest)
	if err != nil || entry == nil {
		return err
	}
	after := entry.Without(e.Name()).Without(ledger.UnknownRepository)
	switch len(after.Repositories) {
	case 0:
		return b.add(e, e.UserDID, entry, nil, Deletes(*entry))
	case len(entry.Repositories):
		return nil
	}
	return b.add(e, e.UserDID, entry, &after, nil)
}

// forget deletes an owner's records of a manifest, with all claims.
func (b *builder) forget(e event.Sequenced) error {
	entry, err := b.entry(e.UserDID, e.ManifestDigest)
	if err != nil || entry == nil {
		return err
	}
	return b.add(e, e.UserDID, entry, nil, Deletes(*entry))
}

// disown removes the claim of an owner's entry that was rebuilt and whose manifest was not
// found in storage. An entry without claims is deleted, and its records stay: they may be
// those of another registry.
func (b *builder) disown(e event.Sequenced) error {
	entry, err := b.entry(e.UserDID, e.ManifestDigest)
	if err != nil || entry == nil || !entry.In(ledger.UnknownRepository) {
		return err
	}
	after := entry.Without(ledger.UnknownRepository)
	if len(after.Repositories) == 0 {
		return b.add(e, e.UserDID, entry, nil, nil)
	}
	return b.add(e, e.UserDID, entry, &after, nil)
}

// removeClaims removes the claim of the event's repository from the entries of its
// manifest whose owner matches. An entry without claims is deleted with its
// records.
func (b *builder) removeClaims(e event.Sequenced, match func(owner string) bool) error {
	owners, err := b.owners(e.ManifestDigest)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		if !match(owner) {
			continue
		}
		entry, err := b.entry(owner, e.ManifestDigest)
		if err != nil {
			return err
		}
		if entry == nil || !entry.In(e.Name()) {
			continue
		}
		after := entry.Without(e.Name())
		if len(after.Repositories) > 0 {
			err = b.add(e, owner, entry, &after, nil)
		} else {
			err = b.add(e, owner, entry, nil, Deletes(*entry))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add puts a change into the batch. A manifest has writes only once in a batch.
func (b *builder) add(e event.Sequenced, owner string, before, after *ledger.Entry, writes []repo.Write) error {
	cause := Cause{Seq: e.Seq, Push: e.Operation == event.OpPush, Repository: e.Name(), Local: b.s.Storage.Local(e.Event), Origin: e.Origin}
	id := owner + "\x00" + e.ManifestDigest
	i, changed := b.changes[id]
	if changed {
		c := &b.batch.Manifests[i]
		if len(writes) > 0 && len(c.Writes) > 0 {
			return errNextBatch
		}
		if len(writes) == 0 && c.After == nil {
			return errNextBatch
		}
		if len(writes) > 0 && b.writes > 0 && b.writes+len(writes) > delivery.MaxWrites {
			return errNextBatch
		}
		c.Events, c.After = append(c.Events, cause), after
		c.Writes = append(c.Writes, writes...)
		b.writes += len(writes)
		return nil
	}
	if len(b.batch.Manifests) > 0 && b.writes+len(writes) > delivery.MaxWrites {
		return errNextBatch
	}
	b.writes += len(writes)
	b.changes[id] = len(b.batch.Manifests)
	b.batch.Manifests = append(b.batch.Manifests, Change{
		Owner: owner, Digest: e.ManifestDigest, Events: []Cause{cause}, Before: before, After: after, Writes: writes,
	})
	return nil
}
