package store

import (
	"bytes"
	"errors"
)

// Read returns a copy of a value.
func Read(r Reader, key []byte) ([]byte, error) {
	val, closer, err := r.Get(key)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), val...), nil
}

// Has reports whether a key exists.
func Has(r Reader, key []byte) (bool, error) {
	_, closer, err := r.Get(key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

// Scan calls visit for the keys that begin with prefix, in order, until it returns an
// error. The arguments of visit are valid during the call only.
func Scan(r Reader, prefix []byte, visit func(key, val []byte) error) error {
	iter, err := r.NewIter(Range{prefix, PrefixEnd(prefix)})
	if err != nil {
		return err
	}
	for iter.First(); iter.Valid(); iter.Next() {
		if err := visit(iter.Key(), iter.Value()); err != nil {
			iter.Close()
			return err
		}
	}
	return errors.Join(iter.Error(), iter.Close())
}

// PrefixEnd returns the first key after all that begin with prefix, which has a byte
// other than 0xff.
func PrefixEnd(prefix []byte) []byte {
	end := bytes.Clone(bytes.TrimRight(prefix, "\xff"))
	end[len(end)-1]++
	return end
}
