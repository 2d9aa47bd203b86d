package mst

import (
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
)

// Diff is the difference between two states of a tree.
type Diff struct {
	Root    cid.Cid
	Proof   []block.Block // the changed nodes, and those that a consumer needs to invert the change
	Added   []block.Block // nodes to store
	Removed []cid.Cid     // nodes to delete
}

// Diff encodes the changed nodes and returns the difference from the tree at the last
// Diff. It visits only nodes that are dirty, and those that hydrate visited, which a
// change may have removed from the tree.
func (t *Tree) Diff() (Diff, error) {
	d := differ{stored: make(map[cid.Cid]struct{}, 32)}
	for _, n := range t.touched {
		if n.CID != nil { // otherwise it is new
			d.stored[*n.CID] = struct{}{}
		}
	}
	t.touched = make([]*mst.Node, 0, 64)         // the old one may be long, and refers to removed nodes
	if err := d.encode(t.mst.Root); err != nil { // even if it is not dirty: every commit carries it
		return Diff{}, fmt.Errorf("encode tree: %w", err)
	}
	d.Root = *t.mst.Root.CID
	for c := range d.stored {
		d.Removed = append(d.Removed, c)
	}
	t.held += len(d.Added) - len(d.Removed)
	return d.Diff, nil
}

type differ struct {
	Diff
	stored map[cid.Cid]struct{} // visited nodes of the previous tree that are not known to be in this one
}

// encode encodes the dirty nodes of a subtree, children first, and sets their
// CIDs.
func (d *differ) encode(n *mst.Node) error {
	if n.CID != nil {
		d.stored[*n.CID] = struct{}{}
	}
	for i := range n.Entries {
		e := &n.Entries[i]
		e.Dirty = false
		if e.Child == nil {
			continue
		}
		if e.Child.Dirty || e.Child.CID == nil {
			if err := d.encode(e.Child); err != nil {
				return err
			}
		} else {
			d.keep(e.Child)
		}
		e.ChildCID = e.Child.CID
	}
	data, err := encode(n)
	if err != nil {
		return err
	}
	c := block.CIDOf(data)
	n.CID, n.Dirty = &c, false
	d.Proof = append(d.Proof, block.Block{CID: c, Data: data})
	if _, ok := d.stored[c]; ok {
		delete(d.stored, c)
	} else {
		d.Added = append(d.Added, block.Block{CID: c, Data: data})
	}
	return nil
}

// keep marks the nodes of an unchanged subtree as still in the tree. If hydrate
// didn't visit a node, it didn't visit those under it.
func (d *differ) keep(n *mst.Node) {
	if _, ok := d.stored[*n.CID]; !ok {
		return
	}
	delete(d.stored, *n.CID)
	for i := range n.Entries {
		if child := n.Entries[i].Child; child != nil {
			d.keep(child)
		}
	}
}
