package repo

import (
	"context"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/archive"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// The import protocol. The archive's blocks go to a temporary file next to the
// blobs, then its tree is walked and compared with the stored records, and the
// differences are one request of the writer: all changes of records, tree, index
// and blob references, a fresh commit and its #sync in one batch. So the import
// is durable as a whole or, after a crash or an error, not at all; the temporary
// file is removed by the next Open. The commit's rev is greater than those of the
// archive and of the repo here, since subscribers may know either.
//
// Package repair has the other importer, Restore, for a stopped repo and
// for archives of any size; both read them with package archive.

// Import makes the repo hold exactly the records of a CAR file of up to
// limit bytes: an export of this account, from this host or another, signed
// by any key. The tree must be complete; records that are already here may be left
// out. Blobs in the file are ignored; see MissingBlobs.
//
// It keeps the changes in memory: a first import takes about twice the size of
// the file.
//
// Errors: ErrInvalidCAR, ErrTooLarge, those of reading and those of Apply.
func (r *Repo) Import(ctx context.Context, in io.Reader, limit int64) (Result, error) {
	if err := r.store.Space(); err != nil {
		return Result{}, err
	}
	path, file, err := r.blobs.Create()
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", layout.DiskFull(err))
	}
	defer r.blobs.FS.Remove(path)
	defer file.Close()
	i := &importer{blocks: archive.NewBlockFile(file)}
	if err := i.read(ctx, in, r.cfg, limit); err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	// The file is removed when this returns, so it must wait for the writer.
	var result Result
	_, err = r.submit(request{ctx: context.WithoutCancel(ctx), work: func(w *writer, b store.Batch) (err error) {
		result, err = i.apply(w, b)
		return err
	}})
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	return result, nil
}

type importer struct {
	blocks  *archive.BlockFile
	rev     string
	root    cid.Cid // of the tree
	records []importedRecord
}

type importedRecord struct {
	path    string
	cid     cid.Cid
	present bool // in the archive
	blobs   []block.Digest
}

// read reads the archive and lists its records.
func (i *importer) read(ctx context.Context, in io.Reader, cfg Config, limit int64) error {
	a := archive.Archive{DID: cfg.DID, Blocks: i.blocks, Limit: limit}
	commit, err := a.Read(ctx, in)
	if err != nil {
		return err
	}
	if err := archive.CheckRev(commit, cfg.Now()); err != nil {
		return err
	}
	i.rev, i.root = commit.Rev, commit.Data
	return a.Records(ctx, i.root, func(path string, c cid.Cid, data []byte) (err error) {
		r := importedRecord{path: path, cid: c, present: data != nil}
		if r.present {
			r.blobs, err = layout.BlobsOf(data)
		}
		i.records = append(i.records, r)
		return err
	})
}

// apply adds the import to the batch. After an error tree and batch may be half
// changed, and the writer discards both.
func (i *importer) apply(w *writer, b store.Batch) (Result, error) {
	changes, err := i.changes(w)
	if err != nil {
		return Result{}, err
	}
	for _, c := range changes {
		if err := w.tree.Set(c.path, c.cid); err != nil {
			return Result{}, damaged(err)
		}
	}
	d, err := w.tree.Diff()
	if err != nil {
		return Result{}, damaged(err)
	}
	if d.Root != i.root {
		return Result{}, archive.Invalid("its records make another tree than the signed one")
	}
	known := w.next
	known.Rev = max(known.Rev, i.rev)
	seq, rev, err := tick(known, w.cfg.Now())
	if err != nil {
		return Result{}, err
	}
	now, err := w.commitOf(d.Root, seq, rev)
	if err != nil {
		return Result{}, err
	}
	edit, err := w.blobs.plan(changes, now.Rev, w.cfg.Now())
	if err != nil {
		return Result{}, err
	}
	for _, c := range changes {
		if err := i.put(b, c); err != nil {
			return Result{}, err
		}
	}
	putChanges(b, d, nil)
	w.blobs.apply(b, edit)
	w.next = now
	return Result{Commit: now.Commit, Rev: now.Rev}, w.addNotice(b, Sync)
}

// changes compares the archive's records with those that are here; both are
// sorted by path.
func (i *importer) changes(w *writer) ([]change, error) {
	it, err := layout.Iterate(w.store, layout.PrefixRecord)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var changes []change
	ok := it.First()
	remove := func(below string) error { // records that are only here, below a path or to the end
		for ; ok && (below == "" || pathAt(it) < below); ok = it.Next() {
			prev, err := recordAt(it)
			if err != nil {
				return err
			}
			changes = append(changes, change{path: pathAt(it), prev: prev})
		}
		return it.Error()
	}
	for _, r := range i.records {
		if err := remove(r.path); err != nil {
			return nil, err
		}
		c := change{path: r.path, cid: r.cid, blobs: r.blobs}
		if ok && pathAt(it) == r.path {
			if c.prev, err = recordAt(it); err != nil {
				return nil, err
			}
			ok = it.Next()
		}
		if !c.changed() {
			continue
		}
		if !r.present {
			return nil, archive.Invalid("Could not parse record at '%s': it is missing", r.path)
		}
		changes = append(changes, c)
	}
	return changes, remove("")
}

func pathAt(it store.Iterator) string { return string(it.Key()[len(layout.PrefixRecord):]) }

func recordAt(it store.Iterator) (cid.Cid, error) {
	val, err := it.ValueAndErr()
	if err != nil {
		return cid.Undef, err
	}
	c, _, err := layout.SplitRecord(val)
	return c, err
}

// put copies one record from the archive to the batch.
func (i *importer) put(b store.Batch, c change) (err error) {
	if c.cid.Defined() {
		if c.record, _, err = i.blocks.Get(block.DigestOf(c.cid), nil); err != nil {
			return err
		}
	}
	putRecord(b, c)
	return nil
}
