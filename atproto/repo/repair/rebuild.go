package repair

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/exchange"
	"github.com/tidings-dev/tidings/internal/store"
)

// The rebuild protocol, of Repair and Restore:
//
//  1. A new repo is built in the folder <dir>.new-<random>: first its
//     records and events are set, then derive adds the derived rows. Blob
//     files are hard links to the old ones. Nothing is synced yet.
//  2. finish writes the head with a #sync and commits with an fsync, which makes
//     all earlier batches durable, closes the database and syncs the folders.
//  3. replace exchanges the new folder with the old one and renames the old one to
//     <dir>.<reason>-<time>. On Linux the exchange is one step, so at each moment
//     <dir> is one of the two repos, both complete.
//
// A crash before step 3 leaves the old repo untouched and a folder
// <dir>.new-<random> that nothing reads and that may be deleted. A crash between
// the exchange and the rename leaves the new repo in place and the old one
// in that folder. Where the exchange isn't supported, a crash between two renames
// may leave no <dir>: then the old one is in <dir>.<reason>-<time> and the
// complete new one in <dir>.new-<random>. An error in step 3 leaves the same as a
// crash, and no folder is removed.

// rebuildBatch is how many bytes are written at once.
const rebuildBatch = 2 << 20

// rebuild is a new repo that will replace the one in cfg.Dir.
type rebuild struct {
	cfg    repo.Config
	dir    string
	store  *store.Store
	files  layout.BlobFiles
	batch  store.Batch
	logged uint64 // bytes of frames
	closed bool

	replacing bool // dir may hold the old repo
}

func newRebuild(cfg repo.Config) (*rebuild, error) {
	dir := repo.TemporaryDir(cfg.Dir)
	if err := cfg.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := layout.Open(dir, cfg.Layout())
	if err != nil {
		return nil, errors.Join(err, cfg.FS.RemoveAll(dir))
	}
	return &rebuild{cfg: cfg, dir: dir, store: s, batch: s.NewBatch(), files: layout.NewBlobFiles(cfg.FS, dir)}, nil
}

func (r *rebuild) set(key, val []byte) error {
	if err := r.batch.Set(key, val); err != nil {
		return err
	}
	if r.batch.Len() < rebuildBatch {
		return nil
	}
	return r.flush()
}

// flush makes the rows readable that were set. finish makes them durable.
func (r *rebuild) flush() error {
	if err := r.store.Space(); err != nil {
		return err
	}
	err := r.store.Commit(r.batch, store.NoSync)
	r.batch = r.store.NewBatch()
	return err
}

// event appends a frame to the event log.
func (r *rebuild) event(seq uint64, frame []byte) error {
	r.logged = layout.SetEvent(r.batch, r.logged, seq, frame)
	if r.batch.Len() < rebuildBatch {
		return nil
	}
	return r.flush()
}

// dropEvents deletes all events so far.
func (r *rebuild) dropEvents() error {
	if err := r.flush(); err != nil {
		return err
	}
	r.logged = 0
	return r.batch.DeleteRange([]byte(layout.PrefixEvent), layout.End(layout.PrefixEvent))
}

// derive builds the tree, the index and the rows of blobs from the records, and
// returns the root. since gives the rev at which a record began to refer to a
// blob, and row the blob's row without its uses, given a record that refers to it.
func (r *rebuild) derive(ctx context.Context, since func(d block.Digest, path string) string, row func(ctx context.Context, d block.Digest, record []byte) (layout.BlobRow, error)) (root cid.Cid, err error) {
	if err := r.flush(); err != nil {
		return cid.Undef, err
	}
	tree := mst.Builder{Put: func(n block.Block) error { return r.set(layout.NodeKey(block.DigestOf(n.CID)), n.Data) }}
	err = r.each(ctx, layout.PrefixRecord, func(key, val []byte) error {
		path := string(key)
		c, record, err := layout.SplitRecord(val)
		if err != nil {
			return err
		}
		blobs, err := layout.BlobsOf(record)
		if err != nil {
			return fmt.Errorf("record %s: %w", path, err)
		}
		if len(blobs) > 0 {
			err = r.set(layout.BlobRefsKey(path), layout.JoinDigests(blobs))
		}
		for _, d := range blobs {
			err = errors.Join(err, r.set(layout.BlobUseKey(d, path), []byte(since(d, path))))
		}
		return errors.Join(err, tree.Add(path, c), r.set(layout.IndexKey(c, path), nil))
	})
	if err != nil {
		return cid.Undef, err
	}
	if root, err = tree.Root(); err != nil {
		return cid.Undef, err
	}
	return root, r.blobRows(ctx, row)
}

// blobRows counts the uses of each blob, which are sorted by blob.
func (r *rebuild) blobRows(ctx context.Context, row func(context.Context, block.Digest, []byte) (layout.BlobRow, error)) error {
	if err := r.flush(); err != nil {
		return err
	}
	var blob block.Digest
	var path string // of a record that refers to it
	uses := uint32(0)
	end := func() error {
		if uses == 0 {
			return nil
		}
		val, err := store.Read(r.store, layout.RecordKey(path))
		if err != nil {
			return err
		}
		_, record, err := layout.SplitRecord(val)
		if err != nil {
			return err
		}
		b, err := row(ctx, blob, record)
		if err != nil {
			return err
		}
		b.Uses, uses = uses, 0
		return r.set(layout.BlobKey(blob), b.Encode())
	}
	err := r.each(ctx, layout.PrefixBlobUse, func(key, _ []byte) error {
		if d := block.Digest(key[:block.DigestSize]); d != blob {
			if err := end(); err != nil {
				return err
			}
			blob, path = d, string(key[block.DigestSize:])
		}
		uses++
		return nil
	})
	return errors.Join(err, end())
}

// each calls f with the keys under a prefix, without it.
func (r *rebuild) each(ctx context.Context, prefix string, f func(key, val []byte) error) error {
	it, err := layout.Iterate(r.store, prefix)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		val, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := f(it.Key()[len(prefix):], val); err != nil {
			return err
		}
	}
	return it.Error()
}

// linkBlob adds a blob of the old repo to the new one.
func (r *rebuild) linkBlob(d block.Digest) error {
	if err := r.cfg.FS.MkdirAll(r.files.Dir, 0o700); err != nil {
		return err
	}
	old := layout.NewBlobFiles(r.cfg.FS, r.cfg.Dir)
	return r.cfg.FS.Link(old.Path(d), r.files.Path(d))
}

// finish writes the head and a #sync and makes everything durable. The head's
// commit stays, unless fresh asks for a new one of the tree under root. Events up
// to dropped are not kept.
func (r *rebuild) finish(head layout.State, root cid.Cid, fresh bool, dropped uint64) (repo.Head, error) {
	if err := r.flush(); err != nil {
		return repo.Head{}, err
	}
	head.Logged = r.logged
	if !fresh {
		root = cid.Undef
	}
	cfg := r.cfg
	cfg.Dir = r.dir
	now, err := repo.Restate(cfg, r.store, r.batch, repo.Restatement{State: head, Data: root, Dropped: dropped})
	if err != nil {
		return repo.Head{}, err
	}
	r.batch = r.store.NewBatch()
	return now, r.sync()
}

// sync closes the database and syncs the folders.
func (r *rebuild) sync() error {
	r.closed = true
	if err := r.store.Close(); err != nil {
		return err
	}
	for _, dir := range []string{r.files.Dir, r.dir} {
		if _, err := r.cfg.FS.Stat(dir); err != nil {
			continue // there are no blobs
		}
		if err := layout.SyncDir(r.cfg.FS, dir); err != nil {
			return err
		}
	}
	return nil
}

// replace replaces the old repo by the new one, and returns the folder in
// which the old one is kept.
func (r *rebuild) replace(reason string) (backup string, err error) {
	backup = r.cfg.Dir + "." + reason + "-" + r.cfg.Now().UTC().Format("20060102T150405")
	for _, err := r.cfg.FS.Stat(backup); err == nil; _, err = r.cfg.FS.Stat(backup) {
		backup += "x" // two within a second
	}
	r.replacing = true
	if err := swap(r.cfg.FS, r.cfg.Dir, r.dir, backup); err != nil {
		return "", err
	}
	return backup, layout.SyncDir(r.cfg.FS, r.cfg.FS.PathDir(r.cfg.Dir))
}

// swap renames dir to backup and with to dir: in one step where the system can,
// so that there always is a dir.
func swap(fs vfs.FS, dir, with, backup string) error {
	if fs == vfs.Default && exchange.Paths(dir, with) == nil {
		return fs.Rename(with, backup)
	}
	if err := fs.Rename(dir, backup); err != nil {
		return err
	}
	return fs.Rename(with, dir)
}

// abort removes the new repo, unless replace has started and failed.
func (r *rebuild) abort() error {
	if r.replacing {
		return nil
	}
	var err error
	if !r.closed {
		r.closed = true
		err = r.store.Close()
	}
	return errors.Join(err, r.cfg.FS.RemoveAll(r.dir))
}
