package repo

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// builder makes the nodes of a tree from its keys in ascending order. It holds
// one unfinished node for each height, whatever the size of the tree.
type builder struct {
	put    func(cid.Cid, []byte) error // takes each node as it is finished, children first
	levels []level                     // by height
	last   []byte
}

// level is the unfinished node of one height.
type level struct {
	node mst.NodeData
	last []byte // the key of its last entry
}

// add appends a key, which has to be greater than those before it.
func (t *builder) add(path string, c cid.Cid) error {
	key := []byte(path)
	if bytes.Compare(key, t.last) <= 0 {
		return fmt.Errorf("build tree: %q comes after %q", path, t.last)
	}
	t.last = key
	height := mst.HeightForKey(key)
	for len(t.levels) <= height {
		t.levels = append(t.levels, level{})
	}
	below, err := t.close(height)
	if err != nil {
		return err
	}
	l := &t.levels[height]
	l.attach(below)
	shared := mst.CountPrefixLen(l.last, key)
	l.node.Entries = append(l.node.Entries, mst.EntryData{PrefixLen: int64(shared), KeySuffix: key[shared:], Value: c})
	l.last = key
	return nil
}

// close finishes the nodes under a height and returns what stands for them
// there, nil if there are none.
func (t *builder) close(height int) (*cid.Cid, error) {
	var child *cid.Cid
	for i := range height {
		l := &t.levels[i]
		l.attach(child)
		if l.node.Left == nil && len(l.node.Entries) == 0 {
			continue
		}
		c, err := t.finish(l)
		if err != nil {
			return nil, err
		}
		child = &c
	}
	return child, nil
}

func (l *level) attach(child *cid.Cid) {
	switch n := len(l.node.Entries); {
	case child == nil:
	case n == 0:
		l.node.Left = child
	default:
		l.node.Entries[n-1].Right = child
	}
}

func (t *builder) finish(l *level) (cid.Cid, error) {
	if l.node.Entries == nil {
		l.node.Entries = []mst.EntryData{}
	}
	data, c, err := l.node.Bytes()
	if err != nil {
		return cid.Undef, fmt.Errorf("encode node: %w", err)
	}
	*l = level{}
	return *c, t.put(*c, data)
}

// root finishes the tree. The tree of no keys is one empty node.
func (t *builder) root() (cid.Cid, error) {
	root, err := t.close(len(t.levels))
	if err != nil {
		return cid.Undef, err
	}
	if root == nil {
		return t.finish(&level{})
	}
	return *root, nil
}
