package records

import (
	"errors"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/forgotten"
)

// How the records of an owner are deleted
//
// An event event.OpForgetOwner deletes all records of an owner, in batches that go through
// the outbox like any other: each has the deletes of as many manifests as fit into a commit,
// and marks them as forgotten. Finishing a batch removes its manifests from ledger and
// usage, so the next begins with what is left. The commit of the last one moves
// state.RecordsBatched past the event. The event begins a batch and ends one: what precedes
// it is in the ledger by then, and what follows it is not.
//
// After a crash the batch in the outbox is confirmed, and the event is handled again with
// the manifests that are left. A manifest whose deletes the account refuses for good is
// passed over until then, and the event becomes a dead letter; its retry deletes the records
// that are older than the event.

// reasonForgotten is why a push that precedes the deletion of its owner's data has no
// records.
const reasonForgotten = "its owner has had its data deleted"

// forgetPage is how many manifests are read at a time.
const forgetPage = 16

// A position is how far the records of an owner are deleted.
type position struct {
	seq       uint64 // of the event; 0: nothing is being deleted
	owner     string
	after     string // digest of the last manifest that is in a batch
	manifests int    // in batches of this process
	ended     bool   // there are no more
}

// forgetOwner puts the deletes of an owner's next manifests into the batch. done is 1 if
// these are the last, else 0: the event is then handled again.
func (b *builder) forgetOwner(e event.Sequenced) (done int, err error) {
	if len(b.batch.Manifests) > 0 {
		return 0, nil // the ledger does not have the changes of the batch yet
	}
	p := b.s.forgetting
	if p.seq != e.Seq {
		p = position{seq: e.Seq, owner: e.UserDID}
	}
	if err := b.s.forgotten.Put(&b.rows, e.UserDID, e.Result()); err != nil {
		return 0, err
	}
	for {
		page, err := b.s.usage.Manifests(e.UserDID, p.after, forgetPage)
		if err != nil {
			return 0, err
		}
		for _, m := range page {
			err := b.forgetManifest(e, m.Digest)
			if errors.Is(err, errNextBatch) {
				b.forgetting = p
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			p.after = m.Digest
			p.manifests++
		}
		if len(page) < forgetPage {
			break
		}
	}
	p.ended, b.forgetting = true, p
	return 1, b.s.forgotten.PutPendingStats(&b.rows, forgotten.PendingStats{Owner: e.UserDID, Seq: e.Seq})
}

// forgetManifest deletes an owner's records of a manifest, with all claims.
func (b *builder) forgetManifest(e event.Sequenced, digest string) error {
	entry, err := b.entry(e.UserDID, digest)
	if err != nil || entry == nil || e.Retry != nil && entry.First > e.TID {
		return err
	}
	of := *e.Event
	of.ManifestDigest = digest
	e.Event = &of
	if err := b.add(e, e.UserDID, entry, nil, Deletes(*entry)); err != nil {
		return err
	}
	b.s.forgotten.Mark(&b.rows, e.UserDID, digest)
	return nil
}

// endForgetting reports that all records of an owner are deleted, if they are.
func (s *Sink) endForgetting() {
	p := s.forgetting
	if !p.ended {
		return
	}
	s.forgetting = position{}
	s.Log.Info("the records of an owner are deleted, as the owner asked", "owner", p.owner, "event", p.seq, "manifests", p.manifests)
	s.Owners.Forgotten()
}

// wasForgotten reports whether a push without a ledger entry has no records because the data
// of its owner was deleted: it precedes the deletion and is repeated now, or it is no push
// but a manifest that was found in storage. A push clears the mark of its manifest.
func (b *builder) wasForgotten(e event.Sequenced) (bool, error) {
	known := b.s.forgotten
	var was bool
	var err error
	if e.Origin != 0 {
		was, err = known.Since(e.UserDID, e.Origin)
	}
	if err == nil && !was && e.Class == "" && (e.Origin == 0 || e.Retry != nil) {
		was, err = known.Marked(e.UserDID, e.ManifestDigest)
	}
	if was || err != nil {
		b.reasons[e.Seq] = reasonForgotten
		return was, err
	}
	return false, known.Unmark(&b.rows, e.UserDID, e.ManifestDigest)
}
