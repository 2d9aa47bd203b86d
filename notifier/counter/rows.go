package counter

import (
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// readRow reads the row at a key; false if there is none.
func readRow(r store.Reader, key []byte) (counts.Row, bool, error) {
	val, closer, err := r.Get(key)
	if errors.Is(err, store.ErrNotFound) {
		return counts.Row{}, false, nil
	}
	if err != nil {
		return counts.Row{}, false, err
	}
	defer closer.Close()
	row, err := decodeRow(key, val)
	return row, err == nil, err
}

func decodeRow(key, val []byte) (counts.Row, error) {
	row, err := counts.DecodeRow(val)
	if err != nil {
		return counts.Row{}, fmt.Errorf("%w at %q", err, key)
	}
	return row, nil
}

// scanRows calls visit with the rows whose keys begin with start, until it returns an error.
// start begins with prefix, and end is the end of a key.
func scanRows(r store.Reader, prefix string, start []byte, visit func(id counts.ID, end string, row counts.Row) error) error {
	return store.Scan(r, start, func(key, val []byte) error {
		id, end, err := parseRow(string(key[len(prefix):]))
		if err != nil {
			return err
		}
		row, err := decodeRow(key, val)
		if err != nil {
			return err
		}
		return visit(id, end, row)
	})
}

// rows iterates over the rows of an epoch merged with the pending rows.
type rows struct {
	base, pending store.Iterator // pending is nil if the pending rows belong to another epoch
	epoch         epoch
}

// newRows starts at the first row whose key is not less than at.
func newRows(from store.Reader, e epoch, withPending bool, at string) (*rows, error) {
	open := func(prefix string) (store.Iterator, error) {
		iter, err := from.NewIter(store.Range{Start: []byte(prefix), End: store.PrefixEnd([]byte(prefix))})
		if err == nil {
			iter.SeekGE([]byte(prefix + at))
		}
		return iter, err
	}
	base, err := open(basePrefix)
	if err != nil {
		return nil, err
	}
	r := &rows{base: base, epoch: e}
	if withPending {
		if r.pending, err = open(pendingPrefix); err != nil {
			return nil, errors.Join(err, base.Close())
		}
	}
	return r, nil
}

func (r *rows) close() error {
	err := r.base.Close()
	if r.pending != nil {
		err = errors.Join(err, r.pending.Close())
	}
	return err
}

// next returns nil after the last row.
func (r *rows) next(now time.Time) (*item, error) {
	baseID, haveBase, err := r.nextBase()
	if err != nil {
		return nil, err
	}
	pendingID, _, havePending, err := r.nextPending()
	if err != nil || !haveBase && !havePending {
		return nil, err
	}
	it := &item{id: pendingID}
	if haveBase && (!havePending || rowKey(baseID) <= rowKey(pendingID)) {
		it.id = baseID
		if it.base, err = decodeRow(r.base.Key(), r.base.Value()); err != nil {
			return nil, err
		}
		r.base.Next()
	}
	it.sum = it.base
	return it, r.addPending(it, now)
}

// nextBase returns the id of the next row of the epoch; false after the last one.
func (r *rows) nextBase() (counts.ID, bool, error) {
	for ; r.base.Valid(); r.base.Next() {
		id, end, err := parseRow(string(r.base.Key()[len(basePrefix):]))
		if err != nil || end == r.epoch.end() {
			return id, err == nil, err
		}
	}
	return counts.ID{}, false, r.base.Error()
}

// nextPending returns the id and the run of the next pending row; false after the last one.
func (r *rows) nextPending() (id counts.ID, run string, ok bool, err error) {
	if r.pending == nil {
		return counts.ID{}, "", false, nil
	}
	if !r.pending.Valid() {
		return counts.ID{}, "", false, r.pending.Error()
	}
	id, run, err = parseRow(string(r.pending.Key()[len(pendingPrefix):]))
	return id, run, err == nil, err
}

// addPending adds the pending rows of an item.
func (r *rows) addPending(it *item, now time.Time) error {
	for {
		id, run, ok, err := r.nextPending()
		if err != nil || !ok || id != it.id {
			return err
		}
		add, err := decodeRow(r.pending.Key(), r.pending.Value())
		if err != nil {
			return err
		}
		it.add(run, add, now)
		r.pending.Next()
	}
}
