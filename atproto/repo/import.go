package repo

import (
	"context"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// Import makes the repository hold exactly the records of a CAR of up to limit
// bytes: an export of this account, here or elsewhere, whatever key signed it.
// All of it is one new commit and one #sync event. The tree must be whole; of
// the records, those that are here already may be left out. Blobs that nobody
// has uploaded yet are told by MissingBlobs.
//
// It keeps the CAR in a file beside the blobs meanwhile, and in memory what
// changes: a first import takes about twice its size.
//
// Errors: ErrBadCAR, ErrTooLarge, what reading the CAR says, and those of Apply.
func (r *Repo) Import(ctx context.Context, in io.Reader, limit int64) (Result, error) {
	if err := r.store.Space(); err != nil {
		return Result{}, err
	}
	path, file, err := r.blobs.create()
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", diskFull(err))
	}
	defer r.blobs.fs.Remove(path)
	defer file.Close()
	c, err := spool(in, limit, file)
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	i := &importer{car: c}
	if i.rev, i.root, err = r.checkCommit(c); err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	if i.records, err = c.records(i.root, 0, nil); err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	// The CAR's file goes when this returns, so it waits for the writer.
	var result Result
	_, err = r.submit(request{ctx: context.WithoutCancel(ctx), work: func(w *writer, b *pebble.Batch) (err error) {
		result, err = i.apply(w, b)
		return err
	}})
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	return result, nil
}

func (r *Repo) checkCommit(c *carFile) (rev string, root cid.Cid, err error) {
	commit, err := c.commit()
	if err != nil {
		return "", cid.Undef, err
	}
	if commit.DID != r.cfg.DID {
		return "", cid.Undef, badCAR("it is the repository of %s, not of %s", commit.DID, r.cfg.DID)
	}
	if at := syntax.TID(commit.Rev).Time(); at.Sub(r.cfg.Now()) > maxAhead {
		return "", cid.Undef, badCAR("its revision %s is dated ahead", commit.Rev)
	}
	return commit.Rev, commit.Data, nil
}

type importer struct {
	car     *carFile
	rev     string
	root    cid.Cid // of the tree
	records []imported
}

// apply puts the import into the batch. Its error leaves tree and batch half
// changed, and the writer drops both.
func (i *importer) apply(w *writer, b *pebble.Batch) (Result, error) {
	changes, err := i.changes(w)
	if err != nil {
		return Result{}, err
	}
	for _, c := range changes {
		if err := w.tree.set(c.path, c.cid); err != nil {
			return Result{}, err
		}
	}
	d, err := w.tree.diff()
	if err != nil {
		return Result{}, err
	}
	if d.root != i.root {
		return Result{}, badCAR("its tree is not the one that its records make")
	}
	known := w.next
	known.Rev = max(known.Rev, i.rev) // who followed the account elsewhere knows that one
	seq, rev, err := known.tick(w.cfg.Now())
	if err != nil {
		return Result{}, err
	}
	now, err := w.commitOf(d.root, seq, rev)
	if err != nil {
		return Result{}, err
	}
	edit, err := w.blobs.plan(changes, now.Rev, w.cfg.Now())
	if err != nil {
		return Result{}, err
	}
	for j := range changes {
		if err := i.put(b, &changes[j]); err != nil {
			return Result{}, err
		}
	}
	putChanges(b, d, nil)
	w.blobs.apply(b, edit)
	w.next = now
	return Result{Commit: now.Commit, Rev: now.Rev}, w.addNotice(b, Sync)
}

// changes compares the import with what is there.
func (i *importer) changes(w *writer) ([]change, error) {
	it, err := w.store.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixRecord), UpperBound: after(prefixRecord)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var changes []change
	ok := it.First()
	drop := func(below string) error { // what is there and not in the import, up to a path
		for ; ok && (below == "" || string(it.Key()[len(prefixRecord):]) < below); ok = it.Next() {
			prev, err := recordAt(it)
			if err != nil {
				return err
			}
			changes = append(changes, change{path: string(it.Key()[len(prefixRecord):]), prev: prev})
		}
		return it.Error()
	}
	for _, r := range i.records {
		if err := drop(r.path); err != nil {
			return nil, err
		}
		c := change{path: r.path, cid: r.cid, blobs: r.blobs}
		if ok && string(it.Key()[len(prefixRecord):]) == r.path {
			if c.prev, err = recordAt(it); err != nil {
				return nil, err
			}
			ok = it.Next()
		}
		if !c.changed() {
			continue
		}
		if !r.here {
			return nil, badCAR("Could not parse record at '%s': it is missing", r.path)
		}
		changes = append(changes, c)
	}
	return changes, drop("")
}

func recordAt(it *pebble.Iterator) (cid.Cid, error) {
	val, err := it.ValueAndErr()
	if err != nil {
		return cid.Undef, err
	}
	c, _, err := splitRecord(val)
	return c, err
}

// put copies one record from the CAR to the batch.
func (i *importer) put(b *pebble.Batch, c *change) (err error) {
	if c.cid.Defined() {
		if c.record, err = i.car.block(c.cid); err != nil {
			return err
		}
	}
	putRecord(b, *c)
	c.record = nil
	return nil
}
