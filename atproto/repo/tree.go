package repo

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// keepNodes is how many nodes stay in memory between commits. Record keys
// mostly grow with time, so the next write walks the nodes of the last.
const keepNodes = 256

// block is encoded DAG-CBOR under its CID.
type block struct {
	cid  cid.Cid
	data []byte
}

// tree is indigo's mst with only those nodes in memory that a write touches:
// hydrate loads them before the mst is asked to change. After any error the
// tree may be half changed and must be thrown away.
type tree struct {
	mst  mst.Tree
	load func(cid.Cid) ([]byte, error)

	touched []*mst.Node // that hydrate met since the last diff
	held    int         // nodes in memory at the last diff, and those loaded since
}

func emptyTree(load func(cid.Cid) ([]byte, error)) *tree {
	return &tree{mst: mst.NewEmptyTree(), load: load}
}

func loadTree(root cid.Cid, load func(cid.Cid) ([]byte, error)) (*tree, error) {
	t := emptyTree(load)
	n, err := t.node(root)
	if err != nil {
		return nil, err
	}
	if len(n.Entries) > 0 {
		t.mst.Root = n
		return t, nil
	}
	t.mst.Root.CID = &root // the tree of no records
	return t, nil
}

func (t *tree) node(c cid.Cid) (*mst.Node, error) {
	data, err := t.load(c)
	if err != nil {
		return nil, err
	}
	nd, err := decodeNode(c, data)
	if err != nil {
		return nil, err
	}
	n := nd.Node(&c)
	t.held++
	return &n, nil
}

func decodeNode(c cid.Cid, data []byte) (*mst.NodeData, error) {
	if CIDOf(data) != c {
		return nil, fmt.Errorf("node %s: %w", c, errDamaged)
	}
	nd, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", c, errDamaged, err)
	}
	return nd, nil
}

// child returns the node under an entry, loading it if it isn't in memory.
func (t *tree) child(n *mst.Node, i int) (*mst.Node, error) {
	e := &n.Entries[i]
	if e.Child != nil {
		return e.Child, nil
	}
	c, err := t.node(*e.ChildCID)
	if err != nil {
		return nil, err
	}
	c.Height = n.Height - 1 // a node without keys of its own doesn't know it
	e.Child = c
	return c, nil
}

// hydrate loads every node that setting or removing key can touch, or that
// proves to others that it was done right: the search path, and where the key
// is found, the edges of the two subtrees beside it, which removal merges. It
// returns the key's entry, nil if there is none.
func (t *tree) hydrate(key []byte) (found *mst.NodeEntry, err error) {
	n := t.mst.Root
	for {
		t.touched = append(t.touched, n)
		child, exact := search(n, key)
		if exact >= 0 {
			return &n.Entries[exact], t.hydrateBeside(n, exact)
		}
		if child < 0 {
			return nil, nil
		}
		if n, err = t.child(n, child); err != nil {
			return nil, err
		}
	}
}

// search finds the entry that holds key, or the child under which it would be.
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

func (t *tree) hydrateBeside(n *mst.Node, i int) error {
	left := func(n *mst.Node) int { return len(n.Entries) - 1 }
	right := func(*mst.Node) int { return 0 }
	if i > 0 {
		if err := t.hydrateEdge(n, i-1, left); err != nil {
			return err
		}
	}
	if i+1 < len(n.Entries) {
		return t.hydrateEdge(n, i+1, right)
	}
	return nil
}

// hydrateEdge loads the child under an entry and its outermost descendants.
func (t *tree) hydrateEdge(n *mst.Node, i int, outermost func(*mst.Node) int) error {
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

// get returns the CID at path, cid.Undef if there is none.
func (t *tree) get(path string) (cid.Cid, error) {
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

// set puts c at path; cid.Undef removes what is there.
func (t *tree) set(path string, c cid.Cid) error {
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
	// mst keeps the height of a root that lost its last key, and would put the
	// next key below it.
	if len(t.mst.Root.Entries) == 0 {
		t.mst = mst.NewEmptyTree()
	}
	return nil
}

// shrink lets go of all nodes but the root once there are many. Only after
// they are stored, and never between set and diff.
func (t *tree) shrink() {
	if t.held <= keepNodes {
		return
	}
	for i := range t.mst.Root.Entries {
		t.mst.Root.Entries[i].Child = nil
	}
	t.held = 1
}
