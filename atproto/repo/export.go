package repo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/store"
)

// Export writes the repository as CAR v1: the signed commit, which is the
// root, then nodes and records as a walk of the tree meets them. It reads one
// durable commit whatever is written meanwhile, and holds no more than the
// path to the current node.
func (r *Repo) Export(ctx context.Context, w io.Writer) error {
	v, err := r.acquire()
	if err != nil {
		return err
	}
	defer r.release(v)
	records, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixRecord), UpperBound: after(prefixRecord)})
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer records.Close()
	records.First()
	out := bufio.NewWriterSize(w, 64<<10)
	e := export{view: v, records: records, out: out, stop: func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.closing:
			return ErrClosed
		default:
			return nil
		}
	}}
	if err := e.run(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// export walks the tree and, since a tree is in the order of its paths, an
// iterator over the records beside it.
type export struct {
	*view
	records *pebble.Iterator
	out     io.Writer
	stop    func() error
}

func (e *export) run() error {
	if err := writeCARHeader(e.out, e.Commit); err != nil {
		return err
	}
	if err := writeCARBlock(e.out, e.Commit, e.block); err != nil {
		return err
	}
	if err := e.node(e.Data); err != nil {
		return err
	}
	if e.records.Valid() {
		return fmt.Errorf("record %s is not in the tree: %w", e.records.Key(), errDamaged)
	}
	return e.records.Error()
}

func (e *export) node(c cid.Cid) error {
	if err := e.stop(); err != nil {
		return err
	}
	data, err := store.Read(e.snap, nodeKey(c))
	if errors.Is(err, pebble.ErrNotFound) {
		return fmt.Errorf("node %s is missing: %w", c, errDamaged)
	}
	if err != nil {
		return err
	}
	if err := writeCARBlock(e.out, c, data); err != nil {
		return err
	}
	n, err := decodeNode(c, data)
	if err != nil {
		return err
	}
	if n.Left != nil {
		if err := e.node(*n.Left); err != nil {
			return err
		}
	}
	var path []byte
	for _, entry := range n.Entries {
		path = append(path[:entry.PrefixLen:entry.PrefixLen], entry.KeySuffix...)
		if err := e.record(string(path), entry.Value); err != nil {
			return err
		}
		if entry.Right == nil {
			continue
		}
		if err := e.node(*entry.Right); err != nil {
			return err
		}
	}
	return nil
}

func (e *export) record(path string, want cid.Cid) error {
	if !e.records.Valid() || string(e.records.Key()) != prefixRecord+path {
		if err := e.records.Error(); err != nil {
			return err
		}
		return fmt.Errorf("record %s is missing: %w", path, errDamaged)
	}
	val, err := e.records.ValueAndErr()
	if err != nil {
		return err
	}
	c, record, err := soundRecord(path, val)
	if err != nil {
		return err
	}
	if c != want {
		return fmt.Errorf("record %s is another than the tree says: %w", path, errDamaged)
	}
	if err := writeCARBlock(e.out, c, record); err != nil {
		return err
	}
	e.records.Next()
	return nil
}
