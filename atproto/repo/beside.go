package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/internal/store"
)

// pair is what the tree and the records say of one path.
type pair struct {
	path string

	want   cid.Cid // by the tree; Undef: it doesn't have the path
	unsure bool    // not having it says nothing, for nodes are lost hereabouts

	val []byte // what is stored under the path; nil: nothing
	err error  // why that can't be read
}

// record is the record's bytes, if they are those of their digest.
func (p pair) record() (cid.Cid, []byte, error) {
	switch {
	case p.err != nil:
		return cid.Undef, nil, fmt.Errorf("it can't be read: %w", p.err)
	case p.val == nil:
		return cid.Undef, nil, errors.New("it is missing")
	}
	c, record, err := splitRecord(p.val)
	if err != nil {
		return cid.Undef, nil, errors.New("it is cut short")
	}
	if CIDOf(record) != c {
		return cid.Undef, nil, errors.New("its bytes are others than its CID says")
	}
	return c, record, nil
}

// beside goes through a tree and the stored records together, in the order of
// their paths, and goes on where either is damaged.
type beside struct {
	db    pebble.Reader
	each  func(pair) error // its val is good until it returns
	lost  func(node cid.Cid, why error) error
	blind func(after string, err error) error // records after this path can't be read, up to the next of the tree

	records *pebble.Iterator
	unsure  bool
	blinded bool
	last    string
}

// run takes the root of the tree, or Undef when nothing is known of it, and
// returns how many nodes are in it.
func (m *beside) run(ctx context.Context, root cid.Cid) (nodes int64, err error) {
	m.records, err = m.db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixRecord), UpperBound: after(prefixRecord)})
	if err != nil {
		return 0, fmt.Errorf("read records: %w", err)
	}
	defer m.records.Close()
	w := walk{
		load: func(c cid.Cid) ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, errStop{err}
			}
			return store.Read(m.db, nodeKey(c))
		},
		entry: m.entry,
		lost: func(c cid.Cid, why error) error {
			m.unsure = true
			return m.lost(c, why)
		},
	}
	m.records.First()
	if !root.Defined() {
		m.unsure = true
	} else if err := w.root(root); err != nil {
		return w.nodes, err
	}
	return w.nodes, m.others(ctx, "")
}

// entry is a path that the tree has.
func (m *beside) entry(path string, want cid.Cid) error {
	if err := m.others(context.Background(), path); err != nil {
		return err
	}
	m.unsure = false
	p := pair{path: path, want: want}
	if !m.records.Valid() {
		m.records.SeekGE(recordKey(path)) // perhaps it can be read from here on
		m.blinded = false
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

// others are records before a path of the tree, all that are left if it is "".
func (m *beside) others(ctx context.Context, until string) error {
	for m.records.Valid() && (until == "" || m.path() < until) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := pair{path: m.path(), unsure: m.unsure}
		p.val, p.err = m.records.ValueAndErr()
		m.last = p.path
		if err := m.each(p); err != nil {
			return err
		}
		m.records.Next()
	}
	if err := m.records.Error(); err != nil && !m.blinded {
		m.blinded = true
		return m.blind(m.last, err)
	}
	return nil
}

func (m *beside) path() string { return string(m.records.Key()[len(prefixRecord):]) }
