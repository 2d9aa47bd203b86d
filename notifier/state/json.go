package state

import (
	"encoding/json"
	"errors"
)

// GetJSON decodes the value that get, such as the Get of a Store, returns for a key. It
// returns false if there is none.
func GetJSON(get func(key []byte) ([]byte, error), key []byte, into any) (bool, error) {
	val, err := get(key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(val, into)
	}
	return err == nil, err
}

// SetJSON sets a key to an encoded value.
func (b *Batch) SetJSON(key []byte, value any) error {
	val, err := json.Marshal(value)
	if err != nil {
		return err
	}
	b.Set(key, val)
	return nil
}
