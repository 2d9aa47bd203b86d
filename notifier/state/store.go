package state

import (
	"bytes"
	"errors"

	"github.com/tidings-dev/tidings/internal/store"
)

// A Store is a database with ordered keys and atomic batches. Its methods are safe for
// concurrent use. Every implementation passes statetest.Run.
type Store interface {
	// Get returns a copy of the value of a key, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Scan calls visit for each key of the range in order. Key and value are
	// valid until visit returns. An error of visit ends the scan and is returned;
	// ErrStop ends it without an error. Keys that are committed during a scan may be
	// visited or not.
	Scan(r Range, visit func(key, value []byte) error) error
	// Commit applies a batch atomically. It is visible to Get and Scan when Commit
	// returns. After an error, the batch may or may not have been applied.
	Commit(b *Batch, d Durability) error
}

// Durability is the durability of a commit.
type Durability = store.Durability

const (
	NoSync = store.NoSync
	Sync   = store.Sync
)

var (
	// ErrNotFound is returned by Get for a key that does not exist.
	ErrNotFound = errors.New("key not found")
	// ErrStop is returned by a visit function that needs no more keys.
	ErrStop = errors.New("stop the scan")
)

// A Range is the keys from From, inclusive, to To, exclusive.
type Range struct {
	From, To []byte
	Reverse  bool // from the last key to the first
}

// Prefix returns the range of the keys that begin with prefix, which must have a byte
// other than 0xff.
func Prefix(prefix string) Range {
	return Range{From: []byte(prefix), To: store.PrefixEnd([]byte(prefix))}
}

// After returns the part of the range after a key.
func (r Range) After(key []byte) Range {
	r.From = append(bytes.Clone(key), 0)
	return r
}

// Set commits one key.
func Set(s Store, key, value []byte, d Durability) error {
	var b Batch
	b.Set(key, value)
	return s.Commit(&b, d)
}

// Delete commits the deletion of one key.
func Delete(s Store, key []byte, d Durability) error {
	var b Batch
	b.Delete(key)
	return s.Commit(&b, d)
}

// Has reports whether a key exists.
func Has(s Store, key []byte) (bool, error) {
	_, err := s.Get(key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
