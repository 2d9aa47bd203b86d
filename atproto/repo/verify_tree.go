package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/internal/store"
)

// records compares the tree with the records, and each record with its CID and
// its entry of the index.
func (v *verifier) records(ctx context.Context) error {
	unsure := int64(0)
	m := beside{
		db: v.db,
		each: func(p pair) error {
			if p.unsure {
				unsure++
			}
			return v.pair(p)
		},
		lost: func(node cid.Cid, why error) error {
			v.lost++
			v.wrong(PartTree, "node "+node.String(), "%v", why)
			return nil
		},
		blind: func(after string, err error) error {
			v.wrong(PartRecord, "after "+orFirst(after), "records can't be read: %v", err)
			return nil
		},
	}
	nodes, err := m.run(ctx, v.root())
	v.report.Nodes = nodes
	if err == nil && unsure > 0 && v.lost > 0 {
		v.wrong(PartTree, "", "%d stored records may be in its missing parts, or not", unsure)
	}
	return err
}

func orFirst(path string) string {
	if path == "" {
		return "the start"
	}
	return path
}

func (v *verifier) pair(p pair) error {
	c, record, err := p.record()
	switch {
	case err != nil:
		v.wrong(PartRecord, p.path, "%v", err)
		return nil
	case !p.want.Defined() && !p.unsure:
		v.wrong(PartRecord, p.path, "it is not in the tree")
	case p.want.Defined() && c != p.want:
		v.wrong(PartRecord, p.path, "it is %s, and the tree says %s", c, p.want)
	}
	v.report.Records++
	v.recordBlobs(p.path, record)
	_, closer, err := v.db.Get(indexKey(c, p.path))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		v.wrong(PartIndex, p.path, "it lacks this record, %s", c)
		return nil
	case err != nil:
		v.wrong(PartIndex, p.path, "it can't be read: %v", err)
		return nil
	}
	v.index++
	return closer.Close()
}

// keys calls each with every key under a prefix, without it.
func (v *verifier) scan(ctx context.Context, prefix string, part Part, each func(rest []byte, it *pebble.Iterator) error) error {
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("read %s: %w", part, err)
	}
	defer it.Close()
	last := ""
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		last = fmt.Sprintf("%x", it.Key()[len(prefix):])
		if err := each(it.Key()[len(prefix):], it); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		v.wrong(part, "after "+orFirst(last), "it can't be read: %v", err)
	}
	return nil
}

func (v *verifier) count(ctx context.Context, prefix string, part Part) (n int64, err error) {
	err = v.scan(ctx, prefix, part, func([]byte, *pebble.Iterator) error { n++; return nil })
	return n, err
}

// leaks finds nodes that are stored and not in the tree. No two nodes of a tree
// are equal, so where as many are stored as the tree has there are none. Where
// there are more, each is looked for in the tree by a key that is under it.
func (v *verifier) leaks(ctx context.Context) error {
	if !v.root().Defined() {
		return nil
	}
	stored, err := v.count(ctx, prefixNode, PartTree)
	if err != nil || stored == v.report.Nodes {
		return err
	}
	unsure := int64(0)
	err = v.scan(ctx, prefixNode, PartTree, func(rest []byte, _ *pebble.Iterator) error {
		if len(rest) != digestSize {
			v.wrong(PartTree, fmt.Sprintf("%x", rest), "a node is stored under what is no digest")
			return nil
		}
		switch c := cidOfDigest(rest); v.place(c) {
		case leaked:
			v.wrong(PartTree, "node "+c.String(), "it is stored, and not in the tree")
		case unknown:
			unsure++
		}
		return nil
	})
	if err == nil && unsure > v.lost {
		v.wrong(PartTree, "", "%d stored nodes may be under those that can't be used, or not", unsure)
	}
	return err
}

type whereabouts int

const (
	inTree whereabouts = iota
	leaked
	unknown
)

// place says where a stored node is: on the way from the root to a key of its
// own, or of the first node under it that has one.
func (v *verifier) place(c cid.Cid) whereabouts {
	key, ok := v.firstKey(c)
	if !ok {
		if c == v.root() {
			return inTree // the tree of no keys
		}
		return unknownIf(v.lost > 0)
	}
	for at := v.root(); ; {
		if at == c {
			return inTree
		}
		n, err := v.node(at)
		if err != nil {
			return unknown
		}
		next, _ := search(n, key)
		if next < 0 {
			return leaked
		}
		at = *n.Entries[next].ChildCID
	}
}

func unknownIf(damaged bool) whereabouts {
	if damaged {
		return unknown
	}
	return leaked
}

func (v *verifier) firstKey(c cid.Cid) ([]byte, bool) {
	for {
		n, err := v.node(c)
		if err != nil || len(n.Entries) == 0 {
			return nil, false
		}
		for _, e := range n.Entries {
			if e.IsValue() {
				return e.Key, true
			}
		}
		c = *n.Entries[0].ChildCID
	}
}

// node loads a node that looks like one.
func (v *verifier) node(c cid.Cid) (*mst.Node, error) {
	data, err := store.Read(v.db, nodeKey(c))
	if err != nil {
		return nil, err
	}
	if CIDOf(data) != c {
		return nil, errDamaged
	}
	d, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if _, err := keysOf(d); err != nil { // Node panics on what that finds
		return nil, err
	}
	n := d.Node(&c)
	return &n, nil
}

// strayIndex finds entries of the index without their record, where there are
// more than records.
func (v *verifier) strayIndex(ctx context.Context) error {
	stored, err := v.count(ctx, prefixIndex, PartIndex)
	if err != nil || stored == v.index {
		return err
	}
	return v.scan(ctx, prefixIndex, PartIndex, func(rest []byte, _ *pebble.Iterator) error {
		if len(rest) < digestSize {
			v.wrong(PartIndex, fmt.Sprintf("%x", rest), "an entry without a digest")
			return nil
		}
		path := string(rest[digestSize:])
		val, err := store.Read(v.db, recordKey(path))
		if errors.Is(err, pebble.ErrNotFound) || err == nil && !bytes.HasPrefix(val, rest[:digestSize]) {
			v.wrong(PartIndex, path, "it has %s there, which is not that record", cidOfDigest(rest[:digestSize]))
		}
		return nil
	})
}
