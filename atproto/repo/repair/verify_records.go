package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// records compares the tree with the records, and each record with its CID and
// its index entry.
func (v *verifier) records(ctx context.Context) error {
	uncertain := int64(0)
	m := merge{
		db: v.db,
		each: func(p pair) error {
			if p.uncertain {
				uncertain++
			}
			return v.pair(p)
		},
		invalid: func(digest []byte, err error) error {
			v.invalid++
			v.report(PartTree, "node "+block.CID(digest).String(), "%v", err)
			return nil
		},
		unreadable: func(after string, err error) error {
			v.report(PartRecord, "after "+orStart(after), "records can't be read: %v", err)
			return nil
		},
	}
	nodes, err := m.run(ctx, v.root())
	v.counts.Nodes = nodes
	if err == nil && uncertain > 0 && v.invalid > 0 {
		v.report(PartTree, "", "%d stored records may belong to its missing parts", uncertain)
	}
	return err
}

func (v *verifier) pair(p pair) error {
	c, record, err := p.record()
	switch {
	case err != nil:
		v.report(PartRecord, p.path, "%v", err)
		return nil
	case !p.want.Defined() && !p.uncertain:
		v.report(PartRecord, p.path, "not in the tree")
	case p.want.Defined() && c != p.want:
		v.report(PartRecord, p.path, "stored with CID %s, the tree has %s", c, p.want)
	}
	v.counts.Records++
	v.read("records", v.counts.Records)
	v.recordBlobs(p.path, record)
	_, closer, err := v.db.Get(layout.IndexKey(c, p.path))
	switch {
	case errors.Is(err, store.ErrNotFound):
		v.report(PartIndex, p.path, "no entry for this record, %s", c)
		return nil
	case err != nil:
		v.report(PartIndex, p.path, "can't be read: %v", err)
		return nil
	}
	v.indexed++
	return closer.Close()
}

// leakedNodes finds nodes that are stored and not in the tree. No two nodes of a
// tree are equal, so there are none if the numbers are equal. If more are stored,
// each is looked up in the tree by a path under it.
func (v *verifier) leakedNodes(ctx context.Context) error {
	if !v.root().Defined() {
		return nil
	}
	stored, err := v.count(ctx, layout.PrefixNode, PartTree)
	if err != nil || stored == v.counts.Nodes {
		return err
	}
	unknown := int64(0)
	err = v.scan(ctx, layout.PrefixNode, PartTree, func(digest []byte, _ store.Iterator) error {
		if len(digest) != block.DigestSize {
			v.report(PartTree, fmt.Sprintf("%x", digest), "a node with an invalid key")
			return nil
		}
		switch v.locate(digest) {
		case leaked:
			v.report(PartTree, "node "+block.CID(digest).String(), "stored, but not in the tree")
		case undetermined:
			unknown++
		}
		return nil
	})
	if err == nil && unknown > v.invalid {
		v.report(PartTree, "", "%d stored nodes may be under those that can't be used", unknown)
	}
	return err
}

type location int

const (
	inTree location = iota
	leaked
	undetermined
)

// locate finds a stored node in the tree, on the search path of the first entry in
// it or below it.
func (v *verifier) locate(digest []byte) location {
	root := block.DigestOf(v.root())
	path, ok := v.pathUnder(digest)
	if !ok {
		switch {
		case bytes.Equal(digest, root):
			return inTree // the empty tree
		case v.invalid > 0:
			return undetermined
		}
		return leaked
	}
	for at := root; at != nil; {
		if bytes.Equal(at, digest) {
			return inTree
		}
		n, err := v.node(at)
		if err != nil {
			return undetermined
		}
		_, at = n.Find(path)
	}
	return leaked
}

func (v *verifier) pathUnder(digest []byte) (path string, ok bool) {
	for digest != nil {
		n, err := v.node(digest)
		if err != nil {
			return "", false
		}
		if len(n.Entries) > 0 {
			return string(n.Entries[0].Suffix), true
		}
		digest = n.Left
	}
	return "", false
}

func (v *verifier) node(digest []byte) (n mst.Node, err error) {
	data, err := store.Read(v.db, layout.NodeKey(digest))
	if err == nil {
		err = n.Parse(digest, data)
	}
	return n, err
}

// strayIndex finds index entries without their record, if there are more entries
// than records.
func (v *verifier) strayIndex(ctx context.Context) error {
	stored, err := v.count(ctx, layout.PrefixIndex, PartIndex)
	if err != nil || stored == v.indexed {
		return err
	}
	return v.scan(ctx, layout.PrefixIndex, PartIndex, func(key []byte, _ store.Iterator) error {
		if len(key) < block.DigestSize {
			v.report(PartIndex, fmt.Sprintf("%x", key), "an entry without a digest")
			return nil
		}
		digest, path := key[:block.DigestSize], string(key[block.DigestSize:])
		val, err := store.Read(v.db, layout.RecordKey(path))
		if errors.Is(err, store.ErrNotFound) || err == nil && !bytes.HasPrefix(val, digest) {
			v.report(PartIndex, path, "an entry for %s, which is not that record", block.CID(digest))
		}
		return nil
	})
}
