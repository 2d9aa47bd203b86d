package state

import (
	"encoding/binary"
	"errors"
)

// Number decodes what Get has returned for a key whose value is a number; 0 if there is none.
func Number(val []byte, err error) (uint64, error) {
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(val) != 8:
		return 0, errors.New("damaged value")
	}
	return binary.BigEndian.Uint64(val), nil
}

// SetNumber sets a key to a number.
func (b *Batch) SetNumber(key []byte, n uint64) {
	b.Set(key, binary.BigEndian.AppendUint64(nil, n))
}
