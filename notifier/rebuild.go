package notifier

import (
	"context"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// unknownRepository stands in an entry that was rebuilt for the repositories that
// have the manifest: a record does not name them. reconcile finds them in
// storage.
const unknownRepository = ""

// rebuildBatch is how many entries are written at once.
const rebuildBatch = 1000

// rebuild makes the ledger and the marks of announcements anew from the account,
// deletes records that are there twice, and lets reconcile do the rest. If it is
// interrupted, the next start does it again.
func (n *Notifier) rebuild(ctx context.Context) error {
	if err := state.Set(n.State, rebuildKey, nil, state.Sync); err != nil {
		return err
	}
	if err := n.rebuildLedger(ctx); err != nil {
		return err
	}
	if err := n.rebuildAnnounced(ctx); err != nil {
		return err
	}
	gathered, err := n.gathered()
	if err != nil {
		return err
	}
	batch := &state.Batch{}
	// What the journal holds up to the cursor was done by a state that is gone.
	putGathered(batch, max(gathered, n.Journal.Cursor(journal.Pushes, recordsName)))
	batch.Set(revKey, []byte(n.Publisher.Head().Rev))
	batch.Set(reconcileKey, []byte(phaseWalk))
	batch.Delete(rebuildKey)
	return n.State.Commit(batch, state.Sync)
}

// rebuildLedger takes each run of records with consecutive keys for what one push
// has made of a manifest. A manifest's later runs are deleted: they come from a
// time when the ledger did not know the first.
func (n *Notifier) rebuildLedger(ctx context.Context) error {
	b := &state.Batch{}
	n.ledger.Clear(b)
	var run []layerRecord
	var twice []repo.Write
	entries := 0
	end := func() error {
		if len(run) == 0 {
			return nil
		}
		first := run[0]
		_, known, err := n.ledger.GetIn(b, first.owner, first.digest)
		if err != nil {
			return err
		}
		if known {
			for _, r := range run {
				twice = append(twice, repo.Write{Action: repo.Delete, Collection: lexicon.NSIDLayer, RKey: r.rkey})
			}
			return nil
		}
		entries++
		entry := ledger.Entry{First: first.micros - 1, ClockID: first.clockID, Records: len(run), Repositories: []string{unknownRepository}}
		n.ledger.Put(b, first.owner, first.digest, entry)
		if entries%rebuildBatch != 0 {
			return nil
		}
		if err := n.State.Commit(b, state.NoSync); err != nil {
			return err
		}
		b = &state.Batch{}
		return pace(ctx)
	}
	err := n.eachRecord(ctx, lexicon.NSIDLayer, func(record repo.Record) error {
		r, ok := readLayer(record)
		if !ok {
			return nil
		}
		if k := len(run); k > 0 {
			last := run[k-1]
			if r.owner == last.owner && r.digest == last.digest && r.clockID == last.clockID && r.micros == last.micros+1 {
				run = append(run, r)
				return nil
			}
		}
		err := end()
		run = append(run[:0], r)
		return err
	})
	if err == nil {
		err = end()
	}
	if err == nil {
		err = n.State.Commit(b, state.Sync)
	}
	if err == nil {
		err = n.deliver(ctx, twice, false)
	}
	if err == nil {
		n.log.Info("the ledger is rebuilt", "manifests", entries, "duplicate_records_deleted", len(twice))
	}
	return err
}

// rebuildAnnounced adds what the account's posts announce. What is remembered
// stays, also if its post is gone.
func (n *Notifier) rebuildAnnounced(ctx context.Context) error {
	b := &state.Batch{}
	posts := 0
	err := n.eachRecord(ctx, lexicon.NSIDPost, func(record repo.Record) error {
		image, ok := readOrigin(record)
		if !ok {
			return nil
		}
		post := announcedPost{rkey: record.RKey}
		if image.Tag != "" {
			post.tags = []string{image.Tag}
		}
		if err := n.addAnnounced(b, image.Repository, image.Digest, post); err != nil {
			return err
		}
		if posts++; posts%rebuildBatch != 0 {
			return nil
		}
		if err := n.State.Commit(b, state.NoSync); err != nil {
			return err
		}
		b = &state.Batch{}
		return pace(ctx)
	})
	if err != nil {
		return err
	}
	return n.State.Commit(b, state.Sync)
}
