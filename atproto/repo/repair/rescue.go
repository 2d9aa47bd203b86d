package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// maxLost is how many lost records are searched in the event log. With more of
// them, a backup is the better source.
const maxLost = 100_000

// rescue rebuilds a repo from a damaged one.
type rescue struct {
	cfg      Config
	from     *store.Store
	verifier *verifier
	done     *Result

	to      *rebuild
	lost    map[cid.Cid][]string // paths of records that the tree has and that were not found yet
	count   int                  // of paths in lost
	log     chain                // of the old event log
	dropped uint64               // the last event that is not kept
}

func (r *rescue) run(ctx context.Context) error {
	backup, err := r.replace("before-repair", func() error {
		for _, step := range []func(context.Context) error{r.copyEvents, r.copyMoved, r.findHead, r.copyRecords, r.searchLost, r.copyIdleBlobs, r.finish} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.done.Backup = backup
	r.note("the repo was rebuilt from what could be read")
	return nil
}

// replace builds a new repo and replaces the old one by it, whose database
// it closes. It returns the folder in which the old one is kept.
func (r *rescue) replace(reason string, build func() error) (backup string, err error) {
	defer func() {
		if r.from != nil {
			err = errors.Join(err, r.from.Close())
		}
	}()
	if r.to, err = newRebuild(r.cfg.Config); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.to.abort())
		}
	}()
	if err := build(); err != nil {
		return "", err
	}
	err, r.from = r.from.Close(), nil
	if err != nil {
		return "", err
	}
	return r.to.replace(reason)
}

func (r *rescue) note(format string, args ...any) {
	r.done.Done = append(r.done.Done, fmt.Sprintf(format, args...))
}

// copyEvents copies the last intact part of the event log: events that follow from
// each other, up to the head. Earlier events are recorded as dropped, since a
// subscriber must not miss events without an error.
func (r *rescue) copyEvents(ctx context.Context) error {
	r.log = chain{verifier: r.verifier}
	dropped, err := layout.LastDropped(r.from)
	if err == nil {
		r.log.last, r.dropped = dropped, dropped
	}
	cut := false
	err = eachEvent(ctx, r.from, func(key, val []byte) error {
		if err := r.log.next(key, val); err != nil {
			cut, r.dropped = true, r.log.last
			return r.to.dropEvents()
		}
		_, frame, err := layout.SplitEvent(val)
		return errors.Join(err, r.to.event(r.log.last, frame))
	})
	if err != nil {
		return err
	}
	if head := r.verifier.head; head.Rev != "" && (r.log.last != head.Seq || r.log.rev != "" && r.log.commit != head.Commit) {
		cut, r.dropped = true, max(r.log.last, head.Seq)
		if err := r.to.dropEvents(); err != nil {
			return err
		}
	}
	if cut {
		r.note("the event log starts again after %d", r.dropped)
	}
	return nil
}

// copyMoved copies where the account has moved to. If that can't be read, the
// next Deactivate records it again.
func (r *rescue) copyMoved(context.Context) error {
	host, err := layout.Moved(r.from)
	if err != nil || host == "" {
		return nil
	}
	return r.to.set(layout.KeyMoved, []byte(host))
}

// findHead sets the head: the stored one, or the last in the event log.
func (r *rescue) findHead(context.Context) error {
	head := &r.verifier.head
	if head.Rev != "" {
		return checkClock(r.cfg, r.verifier)
	}
	val, err := store.Read(r.from, layout.KeyHead)
	if r.log.rev == "" {
		if err == nil && len(val) > 0 {
			return errOtherKey
		}
		head.DID, head.Seq = r.cfg.DID, max(r.log.last, r.dropped)
		return nil
	}
	*head = layout.State{
		Head:  layout.Head{DID: r.cfg.DID, Rev: r.log.rev, Commit: r.log.commit, Data: r.log.data, Seq: r.log.last},
		Block: r.log.signed,
	}
	r.note("the head was taken from the event log: %s", head.Rev)
	return checkClock(r.cfg, r.verifier)
}

// copyRecords copies the records that belong to the repo: those in the tree and,
// where nodes of the tree are damaged, all stored ones.
func (r *rescue) copyRecords(ctx context.Context) error {
	r.lost = map[cid.Cid][]string{}
	skipped := 0
	m := merge{
		db: r.from,
		each: func(p pair) error {
			c, _, err := p.record()
			switch {
			case err == nil && (p.want == c || p.uncertain && !p.want.Defined()):
				return r.to.set(layout.RecordKey(p.path), p.val)
			case p.want.Defined():
				return r.recordLost(p.path, p.want)
			}
			skipped++
			return nil
		},
		invalid:    func([]byte, error) error { return nil },
		unreadable: func(string, error) error { return nil },
	}
	if _, err := m.run(ctx, r.verifier.root()); err != nil {
		return err
	}
	if skipped > 0 {
		r.note("%d stored records were not copied: they are not in the tree or can't be read", skipped)
	}
	return nil
}

// recordLost handles a record of which only the path and the CID are known. It
// copies an equal record at another path, if there is one.
func (r *rescue) recordLost(path string, c cid.Cid) error {
	if val, ok := r.equalRecord(c); ok {
		r.note("record %s was copied from an equal one", path)
		return r.to.set(layout.RecordKey(path), val)
	}
	if r.count++; r.count > maxLost {
		return fmt.Errorf("more than %d records are damaged: restore a backup", maxLost)
	}
	r.lost[c] = append(r.lost[c], path)
	return nil
}

func (r *rescue) equalRecord(c cid.Cid) ([]byte, bool) {
	prefix := layout.IndexKey(c, "")
	it, err := layout.Iterate(r.from, string(prefix))
	if err != nil {
		return nil, false
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		val, err := store.Read(r.from, layout.RecordKey(string(bytes.TrimPrefix(it.Key(), prefix))))
		if err != nil {
			continue
		}
		if got, _, err := (pair{val: val}).record(); err == nil && got == c {
			return val, true
		}
	}
	return nil, false
}

// searchLost searches the commits in the event log for lost records.
func (r *rescue) searchLost(ctx context.Context) error {
	if len(r.lost) == 0 {
		return nil
	}
	found := 0
	log := chain{verifier: r.verifier, block: func(c cid.Cid, data []byte) error {
		for _, path := range r.lost[c] {
			found++
			if err := r.to.set(layout.RecordKey(path), append(block.DigestOf(c), data...)); err != nil {
				return err
			}
		}
		delete(r.lost, c)
		return nil
	}}
	err := eachEvent(ctx, r.from, func(key, val []byte) error {
		_ = log.next(key, val) // reported by Verify
		return nil
	})
	if err != nil {
		return err
	}
	if found > 0 {
		r.note("%d records were taken from the event log", found)
	}
	return nil
}

// finish builds the tree and the other derived rows from the records, and makes
// the head.
func (r *rescue) finish(ctx context.Context) error {
	head := r.verifier.head
	root, err := r.to.derive(ctx, r.usedSince, r.oldBlob)
	if err != nil {
		return err
	}
	paths, count := r.stillLost()
	reason := ""
	switch {
	case count > 0:
		reason = fmt.Sprintf("%d records are lost: they are in the tree, and their bytes were not found", count)
	case head.Rev == "":
		reason = "the head is lost, and the event log has none: it is unknown whether all records are there"
	case root != head.Data:
		reason = "the records make another tree than the signed one: where the tree is damaged, some are lost or changed"
	}
	if reason != "" && !r.cfg.WithoutLost {
		return &LostError{Paths: paths, Count: count, Reason: reason}
	}
	r.done.Dropped = paths
	if reason != "" {
		r.note("dropped: %s", reason)
	}
	fresh := root != head.Data || head.Ahead(r.cfg.Now()) > layout.MaxAhead || r.verifier.oldKey
	now, err := r.to.finish(head, root, fresh, r.dropped)
	if err != nil {
		return err
	}
	if fresh {
		r.note("a fresh commit, %s, replaces %q", now.Rev, head.Rev)
	}
	r.done.Head = now
	return nil
}

func (r *rescue) stillLost() (paths []string, count int) {
	for _, at := range r.lost {
		count += len(at)
		paths = append(paths, at...)
	}
	return paths[:min(len(paths), 1000)], count
}

// copyIdleBlobs copies uploads that have no record yet.
func (r *rescue) copyIdleBlobs(ctx context.Context) error {
	files := layout.NewBlobFiles(r.cfg.FS, r.cfg.Dir)
	return eachBlobRow(ctx, r.from, func(d block.Digest, row layout.BlobRow) error {
		if row.Uses > 0 || !row.Stored || files.Verify(ctx, d, row.Size) != nil {
			return ctx.Err()
		}
		if row.Idle == 0 {
			row.Idle = uint64(r.cfg.Now().UnixMicro())
		}
		return errors.Join(
			r.to.linkBlob(d),
			r.to.set(layout.BlobKey(d), row.Encode()),
			r.to.set(layout.IdleBlobKey(row.Idle, d), []byte{}),
		)
	})
}

// eachBlobRow calls each with the rows of blobs that can be read.
func eachBlobRow(ctx context.Context, db store.Reader, each func(block.Digest, layout.BlobRow) error) error {
	it, err := layout.Iterate(db, layout.PrefixBlob)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil || len(it.Key()) != len(layout.PrefixBlob)+block.DigestSize {
			continue
		}
		row, err := layout.DecodeBlobRow(val)
		if err != nil {
			continue
		}
		if err := each(block.Digest(it.Key()[len(layout.PrefixBlob):]), row); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// usedSince returns the rev at which a record began to refer to a blob, the
// head's if that is lost.
func (r *rescue) usedSince(d block.Digest, path string) string {
	rev, err := store.Read(r.from, layout.BlobUseKey(d, path))
	if err != nil || len(rev) == 0 {
		return r.verifier.head.Rev
	}
	return string(rev)
}

// oldBlob returns the row, without its uses, of a blob that a record refers to,
// and copies its file. Without a row the record describes the blob.
func (r *rescue) oldBlob(ctx context.Context, d block.Digest, record []byte) (layout.BlobRow, error) {
	row, found, err := layout.ReadBlob(r.from, d)
	if err != nil || !found {
		row = describedBlob(record, d)
	}
	if row.Stored {
		if err := layout.NewBlobFiles(r.cfg.FS, r.cfg.Dir).Verify(ctx, d, row.Size); err != nil {
			if ctx.Err() != nil {
				return row, ctx.Err()
			}
			r.note("blob %s is lost (%v); it can be uploaded again", d.BlobCID(), err)
			row = layout.BlobRow{}
		}
	}
	row.Uses, row.Idle = 0, 0
	if !row.Stored {
		return row, nil
	}
	return row, r.to.linkBlob(d)
}

// describedBlob returns the row of a stored blob by a record that refers to it.
func describedBlob(record []byte, d block.Digest) layout.BlobRow {
	blobs, err := lexicon.BlobsIn(record)
	if err != nil {
		return layout.BlobRow{}
	}
	for _, b := range blobs {
		if b.Ref.CID() == d.BlobCID() {
			return layout.BlobRow{Stored: true, Size: b.Size, MIME: b.MimeType}
		}
	}
	return layout.BlobRow{}
}
