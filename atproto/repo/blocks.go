package repo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/store"
)

// MissingError says which blocks a repository doesn't have.
type MissingError struct{ CIDs []cid.Cid }

func (e *MissingError) Error() string { return fmt.Sprintf("there are no such blocks: %v", e.CIDs) }

// ExportBlocks writes these blocks, as Block knows them, as a CAR without
// roots. If one is missing it writes nothing and returns a *MissingError.
func (r *Repo) ExportBlocks(w io.Writer, cids []cid.Cid) error {
	v, err := r.acquire()
	if err != nil {
		return err
	}
	defer r.release(v)
	var missing []cid.Cid
	for _, c := range cids {
		live, err := v.has(c)
		if err != nil {
			return err
		}
		if !live {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := writeCARHeader(out, cid.Undef); err != nil {
		return err
	}
	for _, c := range cids {
		data, err := v.load(c)
		if err != nil {
			return err
		}
		if err := writeCARBlock(out, c, data); err != nil {
			return err
		}
	}
	return out.Flush()
}

// load gives a block's bytes, or ErrNotFound.
func (v *view) load(c cid.Cid) ([]byte, error) {
	if !ours(c) {
		return nil, ErrNotFound
	}
	if c == v.Commit {
		return slices.Clone(v.block), nil
	}
	data, err := store.Read(v.snap, nodeKey(c))
	if !errors.Is(err, pebble.ErrNotFound) {
		return data, err
	}
	path, err := v.pathOf(c)
	if err != nil {
		return nil, err
	}
	_, record, err := v.get(path)
	return record, err
}

// has says whether load finds a block, without its bytes.
func (v *view) has(c cid.Cid) (bool, error) {
	if !ours(c) {
		return false, nil
	}
	if c == v.Commit {
		return true, nil
	}
	_, closer, err := v.snap.Get(nodeKey(c))
	if err == nil {
		return true, closer.Close()
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return false, fmt.Errorf("look up %s: %w", c, err)
	}
	_, err = v.pathOf(c)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
