package repair

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// pair has the entry of the tree and the stored record at one path.
type pair struct {
	path string

	want      cid.Cid // by the tree; Undef: it doesn't have the path
	uncertain bool    // the tree may have the path, in nodes near it that can't be used

	val []byte // the stored row; nil: there is none
	err error  // of reading it
}

// record returns the record if its bytes match its CID.
func (p pair) record() (cid.Cid, []byte, error) {
	switch {
	case p.err != nil:
		return cid.Undef, nil, fmt.Errorf("can't be read: %w", p.err)
	case p.val == nil:
		return cid.Undef, nil, errors.New("missing")
	}
	c, record, err := layout.SplitRecord(p.val)
	if err != nil {
		return cid.Undef, nil, errors.New("truncated")
	}
	if block.CIDOf(record) != c {
		return cid.Undef, nil, mst.ErrHash
	}
	return c, record, nil
}

// merge reads a tree and the stored records in parallel, in the order of their
// paths, and continues after damage in either.
type merge struct {
	db         store.Reader
	each       func(pair) error // its val is valid until it returns
	invalid    func(digest []byte, err error) error
	unreadable func(after string, err error) error // records after this path, up to the next path of the tree

	records   store.Iterator
	uncertain bool
	reported  bool // unreadable was called
	last      string
}

// run reads the tree under root, Undef if it is unknown, and returns the number of
// its valid nodes.
func (m *merge) run(ctx context.Context, root cid.Cid) (nodes int64, err error) {
	m.records, err = layout.Iterate(m.db, layout.PrefixRecord)
	if err != nil {
		return 0, fmt.Errorf("read records: %w", err)
	}
	defer m.records.Close()
	w := mst.Walk{
		Strict: true,
		Load: func(digest, buf []byte) ([]byte, error) {
			data, err := store.Read(m.db, layout.NodeKey(digest))
			if errors.Is(err, store.ErrNotFound) {
				err = errors.New("missing")
			}
			return append(buf, data...), err
		},
		Entry: func(path, record []byte) error { return m.entry(ctx, string(path), block.CID(record)) },
		Invalid: func(digest []byte, err error) error {
			m.uncertain = true
			return m.invalid(digest, err)
		},
	}
	m.records.First()
	switch {
	case block.IsCBOR(root):
		if err := w.Run(ctx, block.DigestOf(root)); err != nil {
			return w.Nodes, err
		}
	default:
		m.uncertain = true
	}
	return w.Nodes, m.others(ctx, "")
}

// entry handles a path of the tree.
func (m *merge) entry(ctx context.Context, path string, want cid.Cid) error {
	if err := m.others(ctx, path); err != nil {
		return err
	}
	m.uncertain = false
	p := pair{path: path, want: want}
	if !m.records.Valid() {
		m.records.SeekGE(layout.RecordKey(path)) // perhaps reading works from here on
		m.reported = false
	}
	switch {
	case m.records.Valid() && m.path() == path:
		p.val, p.err = m.records.ValueAndErr()
	case !m.records.Valid():
		p.err = m.records.Error()
	}
	m.last = path
	if err := m.each(p); err != nil {
		return err
	}
	if m.records.Valid() && m.path() == path {
		m.records.Next()
	}
	return nil
}

// others handles the records before a path of the tree, all the remaining ones
// if it is "".
func (m *merge) others(ctx context.Context, until string) error {
	for m.records.Valid() && (until == "" || m.path() < until) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := pair{path: m.path(), uncertain: m.uncertain}
		p.val, p.err = m.records.ValueAndErr()
		m.last = p.path
		if err := m.each(p); err != nil {
			return err
		}
		m.records.Next()
	}
	if err := m.records.Error(); err != nil && !m.reported {
		m.reported = true
		return m.unreadable(m.last, err)
	}
	return nil
}

func (m *merge) path() string { return string(m.records.Key()[len(layout.PrefixRecord):]) }
