package repo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/internal/store"
)

// rebuildBatch is how many bytes are written at once.
const rebuildBatch = 2 << 20

// rebuild makes a repository beside the one in cfg.Dir, to take its place: first
// its records and events are set, then derive makes what follows from them.
type rebuild struct {
	cfg    Config
	dir    string
	store  *store.Store
	files  blobFiles
	batch  *pebble.Batch
	logged uint64 // bytes of frames
	closed bool
}

func newRebuild(cfg Config) (*rebuild, error) {
	var suffix [4]byte
	rand.Read(suffix[:])
	r := &rebuild{cfg: cfg, dir: cfg.Dir + ".new-" + hex.EncodeToString(suffix[:])}
	if err := cfg.FS.MkdirAll(r.dir, 0o700); err != nil {
		return nil, err
	}
	r.cfg.Dir = r.dir
	r.files = newBlobFiles(r.cfg)
	s, err := openStore(cfg, r.dir)
	if err != nil {
		return nil, errors.Join(err, cfg.FS.RemoveAll(r.dir))
	}
	r.store, r.batch = s, s.NewBatch()
	r.cfg.Dir = cfg.Dir
	return r, nil
}

func (r *rebuild) set(key, val []byte) error {
	if err := r.batch.Set(key, val, nil); err != nil {
		return err
	}
	if r.batch.Len() < rebuildBatch {
		return nil
	}
	return r.flush()
}

// flush lets the database see what was set. What makes it durable is the head.
func (r *rebuild) flush() error {
	if err := r.store.Space(); err != nil {
		return err
	}
	err := r.store.Commit(r.batch, pebble.NoSync)
	r.batch = r.store.NewBatch()
	return err
}

// event appends a frame to the log.
func (r *rebuild) event(seq uint64, frame []byte) error {
	val := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(frame)), r.logged)
	r.logged += uint64(len(frame))
	return r.set(eventKey(seq), append(val, frame...))
}

// dropEvents takes back all events so far.
func (r *rebuild) dropEvents() error {
	if err := r.flush(); err != nil {
		return err
	}
	r.logged = 0
	return r.batch.DeleteRange([]byte(prefixEvent), after(prefixEvent), nil)
}

// derive makes the tree, the index and the blobs' rows from the records. Of a
// blob, since gives the rev at which a record began to refer to it, and row
// what it is, its uses aside.
func (r *rebuild) derive(ctx context.Context, since func(digest, string) string, row func(context.Context, digest, []byte) (blobRow, error)) (root cid.Cid, err error) {
	if err := r.flush(); err != nil {
		return cid.Undef, err
	}
	tree := builder{put: func(c cid.Cid, data []byte) error { return r.set(nodeKey(c), data) }}
	err = r.each(ctx, prefixRecord, func(key, val []byte) error {
		path := string(key)
		c, record, err := splitRecord(val)
		if err != nil {
			return err
		}
		blobs, err := blobsOf(change{cid: c, record: record})
		if err != nil {
			return fmt.Errorf("record %s: %w", path, err)
		}
		if len(blobs) > 0 {
			err = r.set(usesKey(path), joinDigests(blobs))
		}
		for _, d := range blobs {
			err = errors.Join(err, r.set(blobUseKey(d, path), []byte(since(d, path))))
		}
		return errors.Join(err, tree.add(path, c), r.set(indexKey(c, path), nil))
	})
	if err != nil {
		return cid.Undef, err
	}
	if root, err = tree.root(); err != nil {
		return cid.Undef, err
	}
	return root, r.blobRows(ctx, row)
}

// blobRows counts the uses of each blob.
func (r *rebuild) blobRows(ctx context.Context, row func(context.Context, digest, []byte) (blobRow, error)) error {
	if err := r.flush(); err != nil {
		return err
	}
	var of digest
	var by string
	uses := uint32(0)
	end := func() error {
		if uses == 0 {
			return nil
		}
		val, err := store.Read(r.store, recordKey(by))
		if err != nil {
			return err
		}
		_, record, err := splitRecord(val)
		if err != nil {
			return err
		}
		b, err := row(ctx, of, record)
		if err != nil {
			return err
		}
		b.uses, uses = uses, 0
		return r.set(blobKey(of), b.encode())
	}
	err := r.each(ctx, prefixBlobUse, func(key, _ []byte) error {
		if d := digest(key[:digestSize]); d != of {
			if err := end(); err != nil {
				return err
			}
			of, by = d, string(key[digestSize:])
		}
		uses++
		return nil
	})
	return errors.Join(err, end())
}

// each goes over the keys under a prefix, without it.
func (r *rebuild) each(ctx context.Context, prefix string, f func(key, val []byte) error) error {
	it, err := r.store.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: after(prefix)})
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

// linkBlob gives a blob of the old repository to the new one too.
func (r *rebuild) linkBlob(d digest) error {
	if err := r.cfg.FS.MkdirAll(r.files.dir, 0o700); err != nil {
		return err
	}
	from := newBlobFiles(r.cfg)
	return r.cfg.FS.Link(from.path(d), r.files.path(d))
}

// finish makes the head and a #sync, and all durable. The head stays as it is
// unless there is to be a fresh commit. Events up to gone are not kept.
func (r *rebuild) finish(head state, root cid.Cid, fresh bool, gone uint64) (state, error) {
	if err := r.flush(); err != nil {
		return state{}, err
	}
	head.logged = r.logged
	cfg := r.cfg
	cfg.Dir = r.dir
	w, err := newWriter(cfg, r.store, head)
	if err != nil {
		return state{}, err
	}
	b, before := r.batch, max(head.Seq, gone)
	if gone > 0 {
		b.Set(keyLost, binary.BigEndian.AppendUint64(nil, gone), nil)
		w.next.Seq = before
	}
	if fresh {
		err = w.restate(b, root)
	} else {
		err = w.addNotice(b, Sync)
	}
	if err != nil {
		return state{}, err
	}
	if err := w.finish(b, before); err != nil {
		return state{}, err
	}
	r.batch = r.store.NewBatch()
	return w.next, r.durable()
}

// durable closes the database and syncs the folders that changed.
func (r *rebuild) durable() error {
	r.closed = true
	if err := r.store.Close(); err != nil {
		return err
	}
	for _, dir := range []string{r.files.dir, r.dir} {
		if _, err := r.cfg.FS.Stat(dir); err != nil {
			continue // no blobs
		}
		if err := r.files.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// replace lets the new repository take the place of the old one, which is kept
// beside it.
func (r *rebuild) replace(why string) (aside string, err error) {
	aside = r.cfg.Dir + "." + why + "-" + r.cfg.Now().UTC().Format("20060102T150405")
	for _, err := r.cfg.FS.Stat(aside); err == nil; _, err = r.cfg.FS.Stat(aside) {
		aside += "x" // two within a second
	}
	if err := swap(r.cfg.FS, r.cfg.Dir, r.dir, aside); err != nil {
		return "", err
	}
	return aside, r.files.syncDir(r.cfg.FS.PathDir(r.cfg.Dir))
}

// swap moves a folder aside and another one to its place: in one step where the
// system can, so that at no moment there is none.
func swap(fs vfs.FS, dir, with, aside string) error {
	if fs == vfs.Default && exchange(dir, with) == nil {
		return fs.Rename(with, aside)
	}
	if err := fs.Rename(dir, aside); err != nil {
		return err
	}
	return fs.Rename(with, dir)
}

// abandon removes what was made.
func (r *rebuild) abandon() error {
	var err error
	if !r.closed {
		r.closed = true
		err = r.store.Close()
	}
	return errors.Join(err, r.cfg.FS.RemoveAll(r.dir))
}
