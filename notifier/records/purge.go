package records

import (
	"errors"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
)

// How the records of a repository are deleted
//
// An event event.OpPurge removes the claim of its repository from each ledger entry, and the
// entries that have no other claim with their records. Like the deletion of an owner's records
// (forget_owner.go) it does so in batches, begins one and ends one: the ledger has the claims
// of all earlier pushes by then, and none of a later one. The commit of the last batch moves
// state.RecordsBatched past the event and notes that the purge is complete, after which the
// event has no effect: a sink that was rewound must not remove the claims of later pushes.
//
// After a crash the batch in the outbox is confirmed, and the event is handled again with the
// claims that are left. A manifest whose deletes the account refuses for good is passed over,
// and the event becomes a dead letter; another purge deletes its records.

// reasonPurged is why a push before the purge of its repository has no records.
const reasonPurged = "its repository was purged"

const (
	purgePage    = 1000 // ledger entries that are read at a time
	purgePages   = 10   // pages that are read for a batch
	purgeChanges = 500  // of a batch; most have writes, which limit it further
)

// purging is how far the claims of a repository are removed.
type purging struct {
	seq       uint64 // of the event; 0: nothing is being removed
	after     []byte // key of the last ledger entry that was looked at
	manifests int    // in batches of this process
}

// purge puts the removal of a repository's next claims into the batch. done is 1 if these are
// the last, else 0: the event is then handled again.
func (b *builder) purge(e event.Sequenced) (done int, err error) {
	if len(b.batch.Manifests) > 0 {
		return 0, nil // the ledger does not have the changes of the batch yet
	}
	if completed, err := b.s.Purged.Completed(e.Repository, e.Seq); completed || err != nil {
		return 1, err
	}
	if err := b.s.Purged.Raise(e.Repository, e.Seq); err != nil {
		return 0, err
	}
	p := b.s.purging
	if p.seq != e.Seq {
		p = purging{seq: e.Seq}
	}
	for range purgePages {
		page, next, err := b.s.ledger.Page(p.after, purgePage)
		if err != nil {
			return 0, err
		}
		for _, m := range page {
			if m.In(e.Repository) {
				err := b.removeClaim(e, m)
				if errors.Is(err, errNextBatch) {
					b.purging = p
					return 0, nil
				}
				if err != nil {
					return 0, err
				}
				p.manifests++
			}
			p.after = m.Key()
		}
		if next == nil {
			b.s.Log.Info("the records of a repository are removed: it is purged", "repository", e.Repository, "event", e.Seq, "manifests", p.manifests)
			b.s.Purged.Complete(&b.rows, e.Repository, e.Seq)
			return 1, nil
		}
	}
	b.purging = p
	return 0, nil
}

// removeClaim removes the claim of the event's repository from an entry. One without claims is
// deleted with its records.
func (b *builder) removeClaim(e event.Sequenced, m ledger.Manifest) error {
	if len(b.batch.Manifests) >= purgeChanges {
		return errNextBatch
	}
	of := *e.Event
	of.ManifestDigest = m.Digest
	e.Event = &of
	var err error
	if after := m.Without(e.Repository); len(after.Repositories) > 0 {
		err = b.add(e, m.Owner, &m.Entry, &after, nil)
	} else {
		err = b.add(e, m.Owner, &m.Entry, nil, Deletes(m.Entry))
	}
	if err == nil {
		b.s.Purged.MarkImage(&b.rows, e.Repository, m.Digest)
	}
	return err
}

// purged reports whether a push has no records because its repository was purged: after the
// push or, if it is no push but a manifest that was found in storage, since the last one.
func (b *builder) purged(e event.Sequenced) (purged bool, err error) {
	name := e.Name()
	purged, err = b.s.Purged.After(name, e.Result())
	if err == nil && !purged && e.Class == "" {
		purged, err = b.s.Purged.Marked(&b.rows, name)
	}
	if purged || err != nil {
		b.reasons[e.Seq] = reasonPurged
		b.s.Purged.MarkImage(&b.rows, name, e.ManifestDigest)
		return purged, err
	}
	if err := b.s.Purged.UnmarkImage(&b.rows, name, e.ManifestDigest); e.Class == "" || err != nil {
		return false, err
	}
	return false, b.s.Purged.NotePush(&b.rows, name)
}
