package repo

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Proof writes a CAR file that proves, to those who trust the account's key,
// which record is at a path or that there is none: the signed commit, which is
// the root, the nodes on the search path, and the record if there is one. After
// an error the file is incomplete.
func (r *Repo) Proof(out *bytes.Buffer, collection, rkey string) error { // writing to it can't fail
	v, err := r.acquire()
	if err != nil {
		return err
	}
	defer r.release(v)
	path := mst.JoinPath(collection, rkey)
	car.WriteHeader(out, v.Commit)
	car.WriteBlock(out, v.Commit, v.Block)
	n := mst.Node{Entries: make([]mst.Entry, 0, 16)} // few nodes have more
	record, next := []byte(nil), block.DigestOf(v.Data)
	for next != nil {
		data, err := r.loadNode(v, &n, next)
		if err != nil {
			return fmt.Errorf("prove %s: %w", path, err)
		}
		car.WriteDigest(out, next, data)
		record, next = n.Find(path)
	}
	if record != nil {
		c, data, err := v.get(path)
		if errors.Is(err, ErrNotFound) || err == nil && !bytes.Equal(block.DigestOf(c), record) {
			err = layout.ErrDamaged
		}
		if err != nil {
			return fmt.Errorf("prove %s: %w", path, err)
		}
		car.WriteDigest(out, record, data)
	}
	return nil
}

// loadNode loads a node of the view's tree into n and returns its bytes.
func (r *Repo) loadNode(v *view, n *mst.Node, digest []byte) ([]byte, error) {
	if data := r.nodes.Get(digest); data != nil {
		return data, n.ParseTrusted(data)
	}
	data, err := store.Read(v.snap, layout.NodeKey(digest))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("node %s is missing: %w", block.CID(digest), layout.ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	if err := n.Parse(digest, data); err != nil {
		return nil, fmt.Errorf("node %s: %w", block.CID(digest), damaged(err))
	}
	r.nodes.Add(digest, data)
	return data, nil
}
