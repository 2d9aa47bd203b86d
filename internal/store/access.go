package store

import (
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// Access to a database is by interfaces in which no type of Pebble occurs. A package that can
// reach such a type, also through unexported fields and methods, compiles the generic code of
// Pebble once more: 600 functions, which take a second. Therefore fields and methods of
// exported types have no types of Pebble, and functions have them instead.

// ErrNotFound is returned by Get for a key that does not exist.
var ErrNotFound = pebble.ErrNotFound

// IsCorruption reports whether err means that a file of the database is damaged.
func IsCorruption(err error) bool { return pebble.IsCorruptionError(err) }

// Durability is the durability of a commit.
type Durability bool

const (
	// NoSync: a crash may undo the commit together with all later ones, until the next
	// commit with Sync.
	NoSync Durability = false
	// Sync: the batch and all earlier ones are durable when Commit returns.
	Sync Durability = true
)

// A Range is the keys from Start, inclusive, to End, exclusive. nil is no bound.
type Range struct{ Start, End []byte }

// A Reader reads a Store, a Snapshot or an indexed Batch.
type Reader interface {
	// Get returns a value, valid until closer is closed, or ErrNotFound.
	Get(key []byte) (val []byte, closer io.Closer, err error)
	// NewIter returns an iterator over the keys of a range, before the first one.
	NewIter(Range) (Iterator, error)
}

// An Iterator visits keys in order. The methods that move it report whether it is at a key
// then. Key and Value are valid until it is moved. Not safe for concurrent use.
type Iterator interface {
	First() bool
	Last() bool
	Next() bool
	Prev() bool
	SeekGE(key []byte) bool // the first key that is not less
	SeekLT(key []byte) bool // the last key that is less
	Valid() bool
	Key() []byte
	Value() []byte // nil if it cannot be read; Error then returns the reason
	ValueAndErr() ([]byte, error)
	ValueLen() int // bytes, without reading the value
	Error() error
	Close() error // returns the error as well
}

// A Snapshot shows the database as it was when NewSnapshot returned it.
type Snapshot interface {
	Reader
	Close() error
}

// A Batch is changes to commit together, with Store.Commit or CommitInline, which close it.
// An indexed batch is also a Reader of the database with these changes. Not safe for
// concurrent use.
type Batch interface {
	Reader
	Set(key, val []byte) error
	// SetJoined sets key to two pieces, which are copied only once.
	SetJoined(key, first, second []byte) error
	Delete(key []byte) error
	// SingleDelete deletes a key that was set at most once since it was last deleted. It is
	// cheaper than Delete, since both may vanish before they reach the lowest level.
	SingleDelete(key []byte) error
	DeleteRange(start, end []byte) error
	Empty() bool
	Count() uint32 // changes
	Len() int      // bytes
	Close() error
}

// Pebble returns the database of a Store, for what Store does not offer, such as metrics. It
// is not written without Commit or CommitInline.
func Pebble(s *Store) *pebble.DB { return s.db.(*pebble.DB) }

// readerOf returns a reader of all committed batches.
func readerOf(s *Store) pebble.Reader {
	if s.oldLog != nil {
		return s.oldLog.(batch).Batch
	}
	return Pebble(s)
}

// Get implements Reader.
func (s *Store) Get(key []byte) ([]byte, io.Closer, error) { return readerOf(s).Get(key) }

// NewIter implements Reader.
func (s *Store) NewIter(r Range) (Iterator, error) { return newIter(readerOf(s), r) }

// NewBatch returns a batch that cannot be read.
func (s *Store) NewBatch() Batch { return batch{Pebble(s).NewBatch()} }

// NewIndexedBatch returns a batch that can be read.
func (s *Store) NewIndexedBatch() Batch { return batch{Pebble(s).NewIndexedBatch()} }

// NewSnapshot returns a view of the committed batches, which has to be closed.
func (s *Store) NewSnapshot() Snapshot { return snapshot{Pebble(s).NewSnapshot()} }

type snapshot struct{ *pebble.Snapshot }

func (s snapshot) NewIter(r Range) (Iterator, error) { return newIter(s.Snapshot, r) }

type batch struct{ *pebble.Batch }

func (b batch) NewIter(r Range) (Iterator, error)   { return newIter(b.Batch, r) }
func (b batch) Set(key, val []byte) error           { return b.Batch.Set(key, val, nil) }
func (b batch) Delete(key []byte) error             { return b.Batch.Delete(key, nil) }
func (b batch) SingleDelete(key []byte) error       { return b.Batch.SingleDelete(key, nil) }
func (b batch) DeleteRange(start, end []byte) error { return b.Batch.DeleteRange(start, end, nil) }

func (b batch) SetJoined(key, first, second []byte) error {
	op := b.SetDeferred(len(key), len(first)+len(second))
	copy(op.Key, key)
	copy(op.Value[copy(op.Value, first):], second)
	return op.Finish()
}

func newIter(r pebble.Reader, keys Range) (Iterator, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: keys.Start, UpperBound: keys.End})
	if err != nil {
		return nil, err
	}
	return iterator{it}, nil
}

type iterator struct{ *pebble.Iterator }

func (it iterator) ValueLen() int {
	val := it.LazyValue()
	return val.Len()
}
