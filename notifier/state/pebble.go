package state

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

// OnPebble returns a database that Open has opened as a Store.
func OnPebble(db *store.Store) Store { return onPebble{db} }

type onPebble struct{ db *store.Store }

func (p onPebble) Get(key []byte) ([]byte, error) {
	value, err := store.Read(p.db, key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	return value, err
}

func (p onPebble) Exist(ctx context.Context, keys [][]byte) ([]bool, error) {
	return store.Exist(ctx, p.db, keys)
}

func (p onPebble) Scan(r Range, visit func(key, value []byte) error) error {
	iter, err := p.db.NewIter(&pebble.IterOptions{LowerBound: r.From, UpperBound: r.To})
	if err != nil {
		return err
	}
	defer iter.Close()
	first, next := iter.First, iter.Next
	if r.Reverse {
		first, next = iter.Last, iter.Prev
	}
	for ok := first(); ok; ok = next() {
		value, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		if err := visit(iter.Key(), value); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return iter.Error()
}

func (p onPebble) Commit(b *Batch, d Durability) error {
	batch := p.db.NewBatch()
	if err := b.AddTo(batch); err != nil {
		return err
	}
	if d == Sync {
		return p.db.Commit(batch, pebble.Sync)
	}
	return p.db.Commit(batch, pebble.NoSync)
}

// AddTo adds the changes to a batch of Pebble, which the counter commits together with
// its own rows.
func (b *Batch) AddTo(to *pebble.Batch) error {
	for _, c := range b.changes {
		var err error
		switch c.kind {
		case changeSet:
			err = to.Set(c.key, c.value, nil)
		case changeDelete:
			err = to.Delete(c.key, nil)
		case changeDeleteRange:
			err = to.DeleteRange(c.key, c.value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
