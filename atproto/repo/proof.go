package repo

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidings-dev/tidings/internal/store"
)

// Proof writes a CAR that proves to whoever trusts our key which record is at a
// path, or that there is none: the signed commit, which is the root, the nodes
// down to where the record is or would be, and the record if there is one. After
// an error it is not whole.
func (r *Repo) Proof(car *bytes.Buffer, collection, rkey string) error { // writing to it can't fail
	v, err := r.acquire()
	if err != nil {
		return err
	}
	defer r.release(v)
	path := joinPath(collection, rkey)
	writeCARHeader(car, v.Commit)
	writeCARBlock(car, v.Commit, v.block)
	n := node{entries: make([]nodeEntry, 0, 16)} // few nodes have more
	record, next := []byte(nil), digestOf(v.Data)
	for next != nil {
		data, err := r.node(v, &n, next)
		if err != nil {
			return fmt.Errorf("prove %s: %w", path, err)
		}
		writeCARSection(car, next, data)
		record, next = n.find(path)
	}
	if record != nil {
		c, data, err := v.get(path)
		if errors.Is(err, ErrNotFound) || err == nil && !bytes.Equal(digestOf(c), record) {
			err = errDamaged
		}
		if err != nil {
			return fmt.Errorf("prove %s: %w", path, err)
		}
		writeCARSection(car, record, data)
	}
	return nil
}

// node reads a node of the view's tree.
func (r *Repo) node(v *view, n *node, digest []byte) ([]byte, error) {
	if data := r.nodes.get(digest); data != nil {
		n.read(data) // as it did when it was added
		return data, nil
	}
	data, err := store.Read(v.snap, append([]byte(prefixNode), digest...))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("node %s is missing: %w", cidOfDigest(digest), errDamaged)
	}
	if err != nil {
		return nil, err
	}
	if err := n.parse(digest, data); err != nil {
		return nil, err
	}
	r.nodes.add(digest, data)
	return data, nil
}
