package mst

import (
	"bytes"
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"

	"github.com/tidings-dev/tidings/atproto/block"
)

// Walk visits a tree in the order of its paths. It keeps the path to the current
// node and reuses its buffers, so the arguments of the callbacks are valid only
// until they return.
type Walk struct {
	// Load appends the encoded node with this digest to buf.
	Load func(digest, buf []byte) ([]byte, error)

	// Node is called with each node before the entries under it; may be nil.
	Node func(digest, data []byte) error

	// Entry is called with each path and the digest of its record.
	Entry func(path, record []byte) error

	// Invalid is called with a node that is invalid or can't be loaded; the walk then
	// skips the rest of its subtree unless Invalid returns an error. nil: the walk ends
	// with the error.
	Invalid func(digest []byte, err error) error

	// Strict also checks the syntax of the paths, that they ascend, and that each
	// node is at the height that its paths require. Without it only the bytes and
	// the form of each node are checked.
	Strict bool

	Nodes int64 // valid nodes that were visited

	levels []*level // from the root to the current node
	last   []byte   // the last path
}

// level is the buffer for the current node at one depth.
type level struct {
	Node
	data []byte
	path []byte
}

// maxDepth is more than the height of any tree, which is at most 128: half of the bits
// of a digest.
const maxDepth = 130

// Run visits the tree under root.
func (w *Walk) Run(ctx context.Context, root []byte) error {
	w.last = w.last[:0]
	return w.node(ctx, root, 0, -1)
}

// node visits the subtree of a node at a depth. height is that of the node, -1 for the
// root, whose height depends on its paths.
func (w *Walk) node(ctx context.Context, digest []byte, depth, height int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth == len(w.levels) {
		w.levels = append(w.levels, new(level))
	}
	l := w.levels[depth]
	err := w.load(l, digest, depth)
	if err == nil && w.Strict {
		height, err = l.check(height)
	}
	if err != nil {
		return w.invalid(digest, err)
	}
	w.Nodes++
	if w.Node != nil {
		if err := w.Node(digest, l.data); err != nil {
			return err
		}
	}
	if l.Left != nil {
		if err := w.node(ctx, l.Left, depth+1, height-1); err != nil {
			return err
		}
	}
	l.path = l.path[:0]
	for _, e := range l.Entries {
		l.path = append(l.path[:e.Shared], e.Suffix...)
		if w.Strict {
			if bytes.Compare(l.path, w.last) <= 0 {
				return w.invalid(digest, fmt.Errorf("%w: path %q follows %q", ErrNode, l.path, w.last))
			}
			w.last = append(w.last[:0], l.path...)
		}
		if err := w.Entry(l.path, e.Value); err != nil {
			return err
		}
		if e.Right == nil {
			continue
		}
		if err := w.node(ctx, e.Right, depth+1, height-1); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) load(l *level, digest []byte, depth int) (err error) {
	if depth > maxDepth {
		return fmt.Errorf("%w: more than %d levels deep", ErrNode, maxDepth)
	}
	if l.data, err = w.Load(digest, l.data[:0]); err != nil {
		return err
	}
	return l.Parse(digest, l.data)
}

func (w *Walk) invalid(digest []byte, err error) error {
	if w.Invalid == nil {
		return fmt.Errorf("node %s: %w", block.CID(digest), err)
	}
	return w.Invalid(digest, err)
}

// check checks a node by itself: the syntax, the order and the compression of its
// paths, and that its height is the one that their hashes require. height is -1 for a
// root; check returns the height.
func (l *level) check(height int) (int, error) {
	root := height < 0
	var last []byte
	l.path = l.path[:0]
	for i, e := range l.Entries {
		last = append(last[:0], l.path...)
		l.path = append(l.path[:e.Shared], e.Suffix...)
		if bytes.Compare(l.path, last) <= 0 || mst.CountPrefixLen(last, l.path) != e.Shared {
			return 0, fmt.Errorf("%w: path %q follows %q", ErrNode, l.path, last)
		}
		if err := CheckPath(SplitPath(string(l.path))); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrNode, err)
		}
		h := mst.HeightForKey(l.path)
		if root && i == 0 {
			height = h
		}
		if h != height {
			return 0, fmt.Errorf("%w: path %s belongs to height %d, the node has height %d", ErrNode, l.path, h, height)
		}
	}
	switch children := l.hasChildren(); {
	case len(l.Entries) == 0 && root == children: // only an empty tree has a root without entries
		return 0, fmt.Errorf("%w: no entries", ErrNode)
	case height == 0 && children:
		return 0, fmt.Errorf("%w: children below height 0", ErrNode)
	}
	return height, nil
}
