package repo

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// walk goes through a tree in the order of its keys and trusts no node: neither
// that it is there, nor its bytes, nor its form. It holds the path to the
// current one.
type walk struct {
	load  func(cid.Cid) ([]byte, error)
	entry func(path string, c cid.Cid) error
	lost  func(node cid.Cid, why error) error // a node that can't be used, nor what is under it
	nodes int64                               // that were used

	last string // the last key
}

// errShape: a node that no repository's tree has.
var errShape = errors.New("it is not a node of such a tree")

func (w *walk) root(c cid.Cid) error { return w.node(c, -1) }

// node visits a subtree. Its height is known from the parent's.
func (w *walk) node(c cid.Cid, height int) error {
	n, keys, err := w.read(c, height)
	if err != nil {
		if errors.As(err, new(errStop)) {
			return err
		}
		return w.lost(c, err)
	}
	w.nodes++
	if len(keys) > 0 {
		height = mst.HeightForKey([]byte(keys[0]))
	}
	if n.Left != nil {
		if err := w.node(*n.Left, height-1); err != nil {
			return err
		}
	}
	for i, e := range n.Entries {
		if keys[i] <= w.last {
			return w.lost(c, fmt.Errorf("%w: %s comes after %s", errShape, keys[i], w.last))
		}
		w.last = keys[i]
		if err := w.entry(keys[i], e.Value); err != nil {
			return err
		}
		if e.Right == nil {
			continue
		}
		if err := w.node(*e.Right, height-1); err != nil {
			return err
		}
	}
	return nil
}

// errStop ends a walk from within load.
type errStop struct{ error }

func (e errStop) Unwrap() error { return e.error }

// read loads a node and looks at all of it that can be seen from itself.
func (w *walk) read(c cid.Cid, height int) (*mst.NodeData, []string, error) {
	if !ours(c) {
		return nil, nil, fmt.Errorf("%w: its CID is not of CBOR under SHA-256", errShape)
	}
	data, err := w.load(c)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil, errors.New("it is missing")
	}
	if err != nil {
		return nil, nil, err
	}
	if CIDOf(data) != c {
		return nil, nil, errors.New("its bytes are others than its CID says")
	}
	n, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errShape, err)
	}
	keys, err := keysOf(n)
	if err != nil {
		return nil, nil, err
	}
	return n, keys, checkHeight(n, keys, height)
}

// keysOf undoes the compression of a node's keys, and minds their order.
func keysOf(n *mst.NodeData) ([]string, error) {
	keys := make([]string, len(n.Entries))
	last := ""
	for i, e := range n.Entries {
		if e.PrefixLen < 0 || int(e.PrefixLen) > len(last) {
			return nil, fmt.Errorf("%w: key %d shares %d bytes with %q", errShape, i, e.PrefixLen, last)
		}
		key := last[:e.PrefixLen] + string(e.KeySuffix)
		if key <= last || mst.CountPrefixLen([]byte(last), []byte(key)) != int(e.PrefixLen) {
			return nil, fmt.Errorf("%w: key %q comes after %q", errShape, key, last)
		}
		if err := ValidPath(splitPath(key)); err != nil {
			return nil, fmt.Errorf("%w: %w", errShape, err)
		}
		keys[i], last = key, key
	}
	return keys, nil
}

// checkHeight wants each key where its hash puts it. A height of -1 is not
// known: that of the root.
func checkHeight(n *mst.NodeData, keys []string, height int) error {
	root := height < 0
	for _, key := range keys {
		h := mst.HeightForKey([]byte(key))
		if root {
			height, root = h, false
		}
		if h != height {
			return fmt.Errorf("%w: key %s is at height %d, and belongs to %d", errShape, key, height, h)
		}
	}
	switch children := n.Left != nil || len(keys) > 0 && hasRight(n); {
	case len(keys) == 0 && (root && children || !root && !children):
		return fmt.Errorf("%w: it has no keys", errShape)
	case height == 0 && children:
		return fmt.Errorf("%w: it is at the bottom and has nodes under it", errShape)
	}
	return nil
}

func hasRight(n *mst.NodeData) bool {
	for _, e := range n.Entries {
		if e.Right != nil {
			return true
		}
	}
	return false
}
