package repo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
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
	nodes, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixNode), UpperBound: after(prefixNode)})
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer nodes.Close()
	out := bufio.NewWriterSize(w, 64<<10)
	e := export{view: v, records: records, nodes: nodes, out: out, stop: func() error {
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
	nodes   *pebble.Iterator // which keeps what a Get has to find anew
	path    []*onPath        // from the root to the current node
	out     *bufio.Writer
	stop    func() error
}

// onPath is room for one node of the path, for each in turn at its depth.
type onPath struct {
	node
	data []byte
	key  []byte // of the database: of the node, then of its records
}

func (e *export) run() error {
	if err := writeCARHeader(e.out, e.Commit); err != nil {
		return err
	}
	if err := writeCARBlock(e.out, e.Commit, e.block); err != nil {
		return err
	}
	if err := e.node(digestOf(e.Data), 0); err != nil {
		return err
	}
	if e.records.Valid() {
		return fmt.Errorf("record %s is not in the tree: %w", e.records.Key(), errDamaged)
	}
	return e.records.Error()
}

// node writes the subtree of a node that lies so many below the root.
func (e *export) node(digest []byte, depth int) error {
	if err := e.stop(); err != nil {
		return err
	}
	if depth == len(e.path) {
		e.path = append(e.path, new(onPath))
	}
	at := e.path[depth]
	if err := e.load(at, digest); err != nil {
		return err
	}
	if err := writeCARSection(e.out, digest, at.data); err != nil {
		return err
	}
	if at.left != nil {
		if err := e.node(at.left, depth+1); err != nil {
			return err
		}
	}
	at.key = append(at.key[:0], prefixRecord...)
	for _, entry := range at.entries {
		at.key = append(at.key[:len(prefixRecord)+entry.shared], entry.suffix...)
		if err := e.record(at.key, entry.value); err != nil {
			return err
		}
		if entry.right == nil {
			continue
		}
		if err := e.node(entry.right, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (e *export) load(at *onPath, digest []byte) error {
	at.key = append(append(at.key[:0], prefixNode...), digest...)
	if !e.nodes.SeekGE(at.key) || !bytes.Equal(e.nodes.Key(), at.key) {
		if err := e.nodes.Error(); err != nil {
			return err
		}
		return fmt.Errorf("node %s is missing: %w", cidOfDigest(digest), errDamaged)
	}
	val, err := e.nodes.ValueAndErr()
	if err != nil {
		return err
	}
	at.data = append(at.data[:0], val...)
	return at.parse(digest, at.data)
}

func (e *export) record(key, want []byte) error {
	if !e.records.Valid() || !bytes.Equal(e.records.Key(), key) {
		if err := e.records.Error(); err != nil {
			return err
		}
		return fmt.Errorf("record %s is missing: %w", key[len(prefixRecord):], errDamaged)
	}
	val, err := e.records.ValueAndErr()
	if err != nil {
		return err
	}
	if len(val) < digestSize || !bytes.Equal(val[:digestSize], want) {
		return fmt.Errorf("record %s is another than the tree says: %w", key[len(prefixRecord):], errDamaged)
	}
	if sum := sha256.Sum256(val[digestSize:]); !bytes.Equal(sum[:], want) {
		return fmt.Errorf("record %s: %w", key[len(prefixRecord):], errDamaged)
	}
	if err := writeCARSection(e.out, want, val[digestSize:]); err != nil {
		return err
	}
	e.records.Next()
	return nil
}
