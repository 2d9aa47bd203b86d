package counter

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// rows iterates over the rows of an epoch merged with the pending rows.
type rows struct {
	base, pending *pebble.Iterator // pending is nil if the pending rows belong to another epoch
	epoch         epoch
}

// newRows starts at the first row whose key is not less than at.
func newRows(from pebble.Reader, e epoch, withPending bool, at string) (*rows, error) {
	open := func(prefix string) (*pebble.Iterator, error) {
		iter, err := from.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: store.PrefixEnd([]byte(prefix))})
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
	var baseID, pendingID counts.ID
	var end string
	var err error
	for ; r.base.Valid(); r.base.Next() {
		if baseID, end, err = parseRow(string(r.base.Key()[len(basePrefix):])); err != nil {
			return nil, err
		}
		if end == r.epoch.end() {
			break
		}
	}
	haveBase, havePending := r.base.Valid(), r.pending != nil && r.pending.Valid()
	if havePending {
		if pendingID, _, err = parseRow(string(r.pending.Key()[len(pendingPrefix):])); err != nil {
			return nil, err
		}
	}
	if !haveBase && !havePending {
		err := r.base.Error()
		if r.pending != nil {
			err = errors.Join(err, r.pending.Error())
		}
		return nil, err
	}
	it := &item{id: pendingID}
	if haveBase && (!havePending || rowKey(baseID) <= rowKey(pendingID)) {
		it.id = baseID
		if it.base, err = counts.DecodeRow(r.base.Value()); err != nil {
			return nil, fmt.Errorf("%w at %q", err, r.base.Key())
		}
		r.base.Next()
	}
	it.sum = it.base
	for r.pending != nil && r.pending.Valid() {
		id, run, err := parseRow(string(r.pending.Key()[len(pendingPrefix):]))
		if err != nil {
			return nil, err
		}
		if id != it.id {
			break
		}
		add, err := counts.DecodeRow(r.pending.Value())
		if err != nil {
			return nil, fmt.Errorf("%w at %q", err, r.pending.Key())
		}
		it.add(run, add, now)
		r.pending.Next()
	}
	return it, nil
}
