package repo

import (
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// diff is what a commit changes.
type diff struct {
	root  cid.Cid
	proof []block   // the changed nodes, and those that let others undo the change
	added []block   // the nodes to store
	dead  []cid.Cid // the nodes to delete
}

// diff encodes what is dirty. It goes only where something may have changed:
// to dirty nodes, and to those that hydrate met, which a change may have taken
// out of the tree.
func (t *tree) diff() (diff, error) {
	d := differ{stored: make(map[cid.Cid]struct{}, 32)}
	for _, n := range t.touched {
		if n.CID != nil { // otherwise it is new
			d.stored[*n.CID] = struct{}{}
		}
	}
	t.touched = make([]*mst.Node, 0, 64)         // the old one may be long, and holds nodes that are gone
	if err := d.encode(t.mst.Root); err != nil { // also when it is not dirty: it is in every commit
		return diff{}, fmt.Errorf("encode tree: %w", err)
	}
	d.root = *t.mst.Root.CID
	for c := range d.stored {
		d.dead = append(d.dead, c)
	}
	t.held += len(d.added) - len(d.dead)
	return d.diff, nil
}

type differ struct {
	diff
	stored map[cid.Cid]struct{} // nodes of the last commit that were not met in this one
}

// encode gives a node its CID, after those under it.
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
	data, err := encodeNode(n)
	if err != nil {
		return err
	}
	c := CIDOf(data)
	n.CID, n.Dirty = &c, false
	d.proof = append(d.proof, block{c, data})
	if _, ok := d.stored[c]; ok {
		delete(d.stored, c)
	} else {
		d.added = append(d.added, block{c, data})
	}
	return nil
}

// keep meets a node that is as it was. If hydrate didn't meet it, nor did it
// those under it.
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
