package reconcile

import (
	"context"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// rebuildBatch is how many entries are committed at once.
const rebuildBatch = 1000

// rebuild rebuilds the ledger and the post history from the account's records, deletes
// duplicate records, and requests a reconciliation. If it is interrupted, the next start
// begins it again.
func (r *Reconciler) rebuild(ctx context.Context) error {
	if err := state.Set(r.State, state.RebuildReason, nil, state.Sync); err != nil {
		return err
	}
	r.Quota.Unload()
	l := ledgerRebuild{Reconciler: r}
	if err := l.run(ctx); err != nil {
		return err
	}
	if err := r.rebuildHistory(ctx); err != nil {
		return err
	}
	batched, err := records.LastBatched(r.State)
	if err != nil {
		return err
	}
	rev, err := r.Account.Rev(ctx)
	if err != nil {
		return err
	}
	var b state.Batch
	// The events up to the cursor were processed, by a state that is lost.
	records.PutLastBatched(&b, max(batched, r.Journal.Cursor(journal.Pushes, records.Name)))
	b.Set(state.AccountRevision, []byte(rev))
	b.Set(state.ReconcilePhase, []byte(phaseStorage))
	b.Delete(state.StatsRound) // so that the rows of stats records are read again, too
	b.Delete(state.RebuildReason)
	return r.State.Commit(&b, state.Sync)
}

// ledgerRebuild builds ledger entries from layer records. Records with consecutive keys
// are those of one push of a manifest. A manifest's further pushes are duplicates: they
// were written when the ledger had lost the first. Records of other programs are no
// duplicates, and an entry has them only if there are none of this one.
type ledgerRebuild struct {
	*Reconciler
	batch      state.Batch
	duplicates []repo.Write
	entries    int
}

func (l *ledgerRebuild) run(ctx context.Context) error {
	l.Ledger.Clear(&l.batch)
	l.Usage.Clear(&l.batch)
	err := records.EachWritten(ctx, l.Account, "", func(push []records.Layer) error { return l.add(ctx, push) })
	if err == nil {
		l.batch.Set(state.UsageBuilt, []byte(usageComplete))
	}
	if err == nil {
		err = l.State.Commit(&l.batch, state.Sync)
	}
	if err == nil {
		err = l.Account.Deliver(ctx, l.duplicates, false)
	}
	if err == nil {
		l.Log.Info("the ledger is rebuilt", "manifests", l.entries, "duplicate_records_deleted", len(l.duplicates))
	}
	return err
}

// add adds the entry of a push, and its layers to the usage.
func (l *ledgerRebuild) add(ctx context.Context, push []records.Layer) error {
	first := push[0]
	before, known, err := l.Ledger.GetIn(&l.batch, first.Owner, first.Manifest)
	if err != nil {
		return err
	}
	if known && l.foreign(first.ClockID) {
		return nil
	}
	if known && !l.foreign(before.ClockID) {
		for _, r := range push {
			l.duplicates = append(l.duplicates, repo.Write{Action: repo.Delete, Collection: lexicon.NSIDLayer, RKey: r.RKey})
		}
		return nil
	}
	l.entries++
	l.Ledger.Put(&l.batch, first.Owner, first.Manifest, ledger.Entry{
		First: first.Micros - 1, ClockID: first.ClockID, Records: len(push), Repositories: []string{ledger.UnknownRepository},
	})
	if _, err := l.Usage.Replace(&l.batch, first.Owner, first.Manifest, records.UsageOf(push)); err != nil {
		return err
	}
	if l.entries%rebuildBatch != 0 {
		return nil
	}
	if err := l.State.Commit(&l.batch, state.NoSync); err != nil {
		return err
	}
	l.batch = state.Batch{}
	return sink.Pace(ctx)
}

// rebuildVersion adds the version that a post announces, unless one of the same name is known that
// is not older, or the post is being deleted with its image.
func (r *Reconciler) rebuildVersion(b *state.Batch, record repo.Record, image post.Image) error {
	v, ok := announce.Rebuilt(record, image)
	if !ok {
		return nil
	}
	entries, err := r.Posts.GetAfter(b, image.Repository, image.Digest)
	if err != nil || !entries.Live().Has(record.RKey) {
		return err
	}
	store := versions.New(r.State)
	before, known, err := store.Get(v.Repository, v.Name)
	if err != nil || known && !v.Time.After(before.Time) {
		return err
	}
	return store.Put(b, v)
}

// rebuildHistory adds what the account's posts announce to the post history, and to the
// versions. What is in them stays, also if its post is gone.
func (r *Reconciler) rebuildHistory(ctx context.Context) error {
	var b state.Batch
	posts := 0
	err := r.Account.Each(ctx, lexicon.NSIDPost, func(record repo.Record) error {
		image, ok := announce.Origin(record)
		if !ok {
			return nil
		}
		entry := posted.Entry{RKey: record.RKey}
		if image.Tag != "" {
			entry.Tags = []string{image.Tag}
		}
		if err := r.Posts.Add(&b, image.Repository, image.Digest, entry); err != nil {
			return err
		}
		if err := posted.NoteRebuilt(r.State, &b, record, image); err != nil {
			return err
		}
		if err := r.rebuildVersion(&b, record, image); err != nil {
			return err
		}
		if posts++; posts%rebuildBatch != 0 {
			return nil
		}
		if err := r.State.Commit(&b, state.NoSync); err != nil {
			return err
		}
		b = state.Batch{}
		return sink.Pace(ctx)
	})
	if err != nil {
		return err
	}
	return r.State.Commit(&b, state.Sync)
}
