package repo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// MissingError says which blocks a repository doesn't have.
type MissingError struct{ CIDs []cid.Cid }

func (e *MissingError) Error() string { return fmt.Sprintf("there are no such blocks: %v", e.CIDs) }

// ExportBlocks writes these blocks, each once and as Block knows them, as a CAR
// without roots. If one is missing it writes nothing and returns a
// *MissingError; if they have more than most bytes together, ErrTooLarge.
func (r *Repo) ExportBlocks(ctx context.Context, w io.Writer, cids []cid.Cid, most int64) error {
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
	cids, err = f.present(ctx, cids, most)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := writeCARHeader(out, cid.Undef); err != nil {
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
		if err := writeCARBlock(out, c, data); err != nil {
			return err
		}
	}
	return out.Flush()
}

// finder looks up blocks with one iterator: to make one takes as long as to
// look up several.
type finder struct {
	*view
	*pebble.Iterator
}

func (v *view) finder() (finder, error) {
	it, err := v.snap.NewIter(nil)
	if err != nil {
		return finder{}, fmt.Errorf("look up blocks: %w", err)
	}
	return finder{v, it}, nil
}

// present gives each of cids once, if all are there.
func (f finder) present(ctx context.Context, cids []cid.Cid, most int64) (once []cid.Cid, err error) {
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
		most -= int64(size)
	}
	if len(missing) > 0 {
		return nil, &MissingError{missing}
	}
	if most < 0 {
		return nil, ErrTooLarge
	}
	return once, nil
}

// load gives a block's bytes, which are good until the next look-up, or
// ErrNotFound.
func (f finder) load(c cid.Cid) ([]byte, error) {
	if c == f.Commit {
		return f.block, nil
	}
	path, err := f.find(c)
	if err != nil {
		return nil, err
	}
	val, err := f.ValueAndErr()
	if err != nil || path == "" {
		return val, err
	}
	_, record, err := soundRecord(path, val)
	return record, err
}

// size is how many bytes load gives. It doesn't read them.
func (f finder) size(c cid.Cid) (int, error) {
	if c == f.Commit {
		return len(f.block), nil
	}
	path, err := f.find(c)
	if err != nil {
		return 0, err
	}
	val := f.LazyValue()
	if path == "" {
		return val.Len(), nil
	}
	return val.Len() - digestSize, nil
}

// find goes to a block that is not the commit: a node, for which path is empty,
// or the record at a path.
func (f finder) find(c cid.Cid) (path string, err error) {
	if !ours(c) {
		return "", ErrNotFound
	}
	if key := nodeKey(c); f.SeekGE(key) && bytes.Equal(f.Key(), key) {
		return "", nil
	}
	prefix := indexKey(c, "")
	if !f.SeekGE(prefix) || !bytes.HasPrefix(f.Key(), prefix) || len(f.Key()) == len(prefix) {
		return "", f.absent(ErrNotFound)
	}
	path = string(f.Key()[len(prefix):])
	if key := recordKey(path); !f.SeekGE(key) || !bytes.Equal(f.Key(), key) {
		return "", f.absent(fmt.Errorf("record %s is missing: %w", path, errDamaged))
	}
	return path, nil
}

// absent is err, unless it was reading that failed.
func (f finder) absent(err error) error {
	if failed := f.Error(); failed != nil {
		return fmt.Errorf("look up a block: %w", failed)
	}
	return err
}
