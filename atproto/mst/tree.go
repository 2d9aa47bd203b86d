package mst

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
)

// keepNodes is how many nodes stay in memory between commits. Record keys mostly grow
// with time, so the next write visits the nodes of the last one.
const keepNodes = 256

// Tree is indigo's mst with only those nodes in memory that a change touches:
// hydrate loads them before the mst is asked to change. After an error the tree
// may be half changed and must be discarded.
type Tree struct {
	mst  mst.Tree
	load func(cid.Cid) ([]byte, error)
	read Node // reused for each node that is loaded

	touched []*mst.Node // nodes that hydrate visited since the last Diff
	held    int         // nodes in memory at the last Diff, and those loaded since
}

// Empty returns a tree without paths. load returns the encoded node with a CID.
func Empty(load func(cid.Cid) ([]byte, error)) *Tree {
	return &Tree{mst: mst.NewEmptyTree(), load: load}
}

// Load returns the tree with this root.
func Load(root cid.Cid, load func(cid.Cid) ([]byte, error)) (*Tree, error) {
	t := Empty(load)
	n, err := t.node(root)
	if err != nil {
		return nil, err
	}
	if len(n.Entries) > 0 {
		t.mst.Root = n
		return t, nil
	}
	t.mst.Root.CID = &root // of an empty tree
	return t, nil
}

func (t *Tree) node(c cid.Cid) (*mst.Node, error) {
	data, err := t.load(c)
	if err != nil {
		return nil, err
	}
	if err := t.read.Parse(block.DigestOf(c), data); err != nil {
		return nil, fmt.Errorf("node %s: %w", c, err)
	}
	t.held++
	return t.read.indigo(c), nil
}

// child returns the node under an entry, loading it if it isn't in memory.
func (t *Tree) child(n *mst.Node, i int) (*mst.Node, error) {
	e := &n.Entries[i]
	if e.Child != nil {
		return e.Child, nil
	}
	c, err := t.node(*e.ChildCID)
	if err != nil {
		return nil, err
	}
	c.Height = n.Height - 1 // which a node without keys can't derive
	e.Child = c
	return c, nil
}

// hydrate loads every node that setting or removing key can touch, or that a
// consumer needs to verify the change: the search path and, where the key is
// found, the edges of the two subtrees next to it, which removal merges. It
// returns the key's entry, nil if there is none.
func (t *Tree) hydrate(key []byte) (found *mst.NodeEntry, err error) {
	n := t.mst.Root
	for {
		t.touched = append(t.touched, n)
		child, exact := search(n, key)
		if exact >= 0 {
			return &n.Entries[exact], t.hydrateNeighbors(n, exact)
		}
		if child < 0 {
			return nil, nil
		}
		if n, err = t.child(n, child); err != nil {
			return nil, err
		}
	}
}

// search returns the index of the entry that has key, or of the child under which it
// would be, and -1 for the other, or -1 for both.
func search(n *mst.Node, key []byte) (child, exact int) {
	child = -1
	for i := range n.Entries {
		e := &n.Entries[i]
		if e.IsChild() {
			child = i
			continue
		}
		switch bytes.Compare(e.Key, key) {
		case 0:
			return -1, i
		case 1:
			return child, -1
		}
		child = -1
	}
	return child, -1
}

func (t *Tree) hydrateNeighbors(n *mst.Node, i int) error {
	last := func(n *mst.Node) int { return len(n.Entries) - 1 }
	first := func(*mst.Node) int { return 0 }
	if i > 0 {
		if err := t.hydrateEdge(n, i-1, last); err != nil {
			return err
		}
	}
	if i+1 < len(n.Entries) {
		return t.hydrateEdge(n, i+1, first)
	}
	return nil
}

// hydrateEdge loads the child under an entry and its outermost descendants.
func (t *Tree) hydrateEdge(n *mst.Node, i int, outermost func(*mst.Node) int) error {
	for n.Entries[i].IsChild() {
		var err error
		if n, err = t.child(n, i); err != nil {
			return err
		}
		t.touched = append(t.touched, n)
		i = outermost(n)
	}
	return nil
}

// Get returns the CID at path, cid.Undef if there is none.
func (t *Tree) Get(path string) (cid.Cid, error) {
	before := len(t.touched)
	found, err := t.hydrate([]byte(path))
	t.touched = t.touched[:before] // reading changes nothing
	if err != nil {
		return cid.Undef, fmt.Errorf("read tree: %w", err)
	}
	if found == nil {
		return cid.Undef, nil
	}
	return *found.Value, nil
}

// Set sets the CID at path; cid.Undef removes the path.
func (t *Tree) Set(path string, c cid.Cid) error {
	key := []byte(path)
	if _, err := t.hydrate(key); err != nil {
		return fmt.Errorf("change tree: %w", err)
	}
	if c.Defined() {
		if _, err := t.mst.Insert(key, c); err != nil {
			return fmt.Errorf("change tree: %w", err)
		}
		return nil
	}
	if _, err := t.mst.Remove(key); err != nil {
		return fmt.Errorf("change tree: %w", err)
	}
	// mst keeps the height of a root whose last key was removed, and would add the next
	// key below it.
	if len(t.mst.Root.Entries) == 0 {
		t.mst = mst.NewEmptyTree()
	}
	return nil
}

// Shrink drops all nodes but the root from memory once there are many. Their
// changes must be stored, so it must not be called between Set and Diff.
func (t *Tree) Shrink() {
	if t.held <= keepNodes {
		return
	}
	for i := range t.mst.Root.Entries {
		t.mst.Root.Entries[i].Child = nil
	}
	t.held = 1
}
