package mst

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
)

// Builder encodes a tree from its paths in ascending order. It keeps one
// unfinished node per height, independent of the size of the tree.
type Builder struct {
	Put func(block.Block) error // called with each finished node, children first

	levels []mst.Node // unfinished nodes by height
	last   []byte
}

// Add appends a path, which must be greater than those before it.
func (b *Builder) Add(path string, c cid.Cid) error {
	key := []byte(path)
	if bytes.Compare(key, b.last) <= 0 {
		return fmt.Errorf("build tree: path %q follows %q", path, b.last)
	}
	b.last = key
	height := mst.HeightForKey(key)
	for len(b.levels) <= height {
		b.levels = append(b.levels, mst.Node{})
	}
	child, err := b.finishBelow(height)
	if err != nil {
		return err
	}
	n := &b.levels[height]
	appendChild(n, child)
	n.Entries = append(n.Entries, mst.NodeEntry{Key: key, Value: &c})
	return nil
}

// Root finishes the tree and returns its root. A tree without paths is one
// empty node.
func (b *Builder) Root() (cid.Cid, error) {
	root, err := b.finishBelow(len(b.levels))
	if err != nil {
		return cid.Undef, err
	}
	if root == nil {
		return b.finish(&mst.Node{})
	}
	return *root, nil
}

// finishBelow finishes the nodes below a height and returns the topmost of
// them, nil if there are none.
func (b *Builder) finishBelow(height int) (*cid.Cid, error) {
	var child *cid.Cid
	for i := range height {
		n := &b.levels[i]
		appendChild(n, child)
		if len(n.Entries) == 0 {
			continue
		}
		c, err := b.finish(n)
		if err != nil {
			return nil, err
		}
		child = &c
	}
	return child, nil
}

func appendChild(n *mst.Node, child *cid.Cid) {
	if child != nil {
		n.Entries = append(n.Entries, mst.NodeEntry{ChildCID: child})
	}
}

func (b *Builder) finish(n *mst.Node) (cid.Cid, error) {
	data, err := encode(n)
	if err != nil {
		return cid.Undef, fmt.Errorf("build tree: %w", err)
	}
	n.Entries = n.Entries[:0]
	c := block.CIDOf(data)
	return c, b.Put(block.Block{CID: c, Data: data})
}
