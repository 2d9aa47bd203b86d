package repo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// ExportBlocks writes these blocks, each once, as a CAR file without roots: the
// head's commit, nodes of its tree, and records in it. If one is missing it
// writes nothing and returns a *MissingError; if together they have more than
// limit bytes, ErrTooLarge.
func (r *Repo) ExportBlocks(ctx context.Context, w io.Writer, cids []cid.Cid, limit int64) error {
	v, err := r.acquire()
	if err != nil {
		return err
	}
	defer r.release(v)
	f, err := v.finder()
	if err != nil {
		return err
	}
	defer f.Close()
	cids, err = f.present(ctx, cids, limit)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := car.WriteHeader(out, cid.Undef); err != nil {
		return err
	}
	for _, c := range cids {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := f.load(c)
		if err != nil {
			return err
		}
		if err := car.WriteBlock(out, c, data); err != nil {
			return err
		}
	}
	return out.Flush()
}

// finder looks up blocks with one iterator: creating an iterator takes as long
// as several lookups.
type finder struct {
	*view
	store.Iterator
}

func (v *view) finder() (finder, error) {
	it, err := v.snap.NewIter(store.Range{})
	if err != nil {
		return finder{}, fmt.Errorf("look up blocks: %w", err)
	}
	return finder{v, it}, nil
}

// present returns each of cids once, if the repo has all of them.
func (f finder) present(ctx context.Context, cids []cid.Cid, limit int64) (once []cid.Cid, err error) {
	var missing []cid.Cid
	seen := map[cid.Cid]bool{}
	for _, c := range cids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if seen[c] {
			continue
		}
		seen[c] = true
		size, err := f.size(c)
		if errors.Is(err, ErrNotFound) {
			missing = append(missing, c)
			continue
		}
		if err != nil {
			return nil, err
		}
		once = append(once, c)
		limit -= int64(size)
	}
	if len(missing) > 0 {
		return nil, &MissingError{missing}
	}
	if limit < 0 {
		return nil, ErrTooLarge
	}
	return once, nil
}

// load returns the bytes of a block, which are valid until the next lookup, or
// ErrNotFound.
func (f finder) load(c cid.Cid) ([]byte, error) {
	if c == f.Commit {
		return f.Block, nil
	}
	path, err := f.find(c)
	if err != nil {
		return nil, err
	}
	val, err := f.ValueAndErr()
	if err != nil || path == "" {
		return val, err
	}
	_, record, err := layout.VerifyRecord(path, val)
	return record, err
}

// size returns the number of bytes that load returns, without reading them.
func (f finder) size(c cid.Cid) (int, error) {
	if c == f.Commit {
		return len(f.Block), nil
	}
	path, err := f.find(c)
	if err != nil {
		return 0, err
	}
	if path == "" {
		return f.ValueLen(), nil
	}
	return f.ValueLen() - block.DigestSize, nil
}

// find moves the iterator to a block other than the commit: a node, for which
// path is empty, or the record at a path.
func (f finder) find(c cid.Cid) (path string, err error) {
	if !block.IsCBOR(c) {
		return "", ErrNotFound
	}
	if key := layout.NodeKey(block.DigestOf(c)); f.SeekGE(key) && bytes.Equal(f.Key(), key) {
		return "", nil
	}
	prefix := layout.IndexKey(c, "")
	if !f.SeekGE(prefix) || !bytes.HasPrefix(f.Key(), prefix) || len(f.Key()) == len(prefix) {
		return "", f.readError(ErrNotFound)
	}
	path = string(f.Key()[len(prefix):])
	if key := layout.RecordKey(path); !f.SeekGE(key) || !bytes.Equal(f.Key(), key) {
		return "", f.readError(fmt.Errorf("record %s is missing: %w", path, layout.ErrDamaged))
	}
	return path, nil
}

// readError returns the iterator's error, or else err.
func (f finder) readError(err error) error {
	if failed := f.Error(); failed != nil {
		return fmt.Errorf("look up a block: %w", failed)
	}
	return err
}
