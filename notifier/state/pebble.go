package state

import (
	"errors"

	"github.com/tidings-dev/tidings/internal/store"
)

// OnPebble returns a database that Open has opened as a Store.
func OnPebble(db *store.Store) Store { return onPebble{db} }

type onPebble struct{ db *store.Store }

func (p onPebble) Get(key []byte) ([]byte, error) {
	value, err := store.Read(p.db, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNotFound
	}
	return value, err
}

func (p onPebble) Scan(r Range, visit func(key, value []byte) error) error {
	iter, err := p.db.NewIter(store.Range{Start: r.From, End: r.To})
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
	return p.db.Commit(batch, d)
}

// AddTo adds the changes to a batch that the counter commits together with its own rows.
func (b *Batch) AddTo(to store.Batch) error {
	for _, c := range b.changes {
		var err error
		switch c.kind {
		case changeSet:
			err = to.Set(c.key, c.value)
		case changeDelete:
			err = to.Delete(c.key)
		case changeDeleteRange:
			err = to.DeleteRange(c.key, c.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
