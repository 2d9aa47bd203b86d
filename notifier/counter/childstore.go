package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// childStore keeps children on disk in generations, as the set in memory does
// in halves: when one is full the next begins, and the one before is dropped.
type childStore struct {
	half       int
	generation uint32
	count      int        // in this generation
	fresh      []ChildKey // of this fold
	unshared   []ChildKey // waiting to be told to other replicas
}

// maxUnshared bounds what waits while Redis is away. What doesn't fit is
// learned by the other replicas when the index is fetched there.
const maxUnshared = 1 << 14

func (c *Counter) loadChildren() error {
	s := childStore{half: max(c.cfg.MaxChildren/2, 1), unshared: c.children.unshared}
	err := c.eachChild(func(generation uint32, _ ChildKey) {
		if generation != s.generation {
			s.generation, s.count = generation, 0
		}
		s.count++
	})
	c.children = s
	return err
}

// Children gives the children of indexes that were stored, those unseen for
// longest first, for Rule.Learn.
func (c *Counter) Children() ([]ChildKey, error) {
	var keys []ChildKey
	err := c.eachChild(func(_ uint32, k ChildKey) { keys = append(keys, k) })
	if err != nil {
		return nil, fmt.Errorf("load children: %w", err)
	}
	return keys, nil
}

func (c *Counter) eachChild(visit func(generation uint32, k ChildKey)) error {
	prefix := []byte(childPrefix)
	return scan(c.db, prefix, func(key, _ []byte) error {
		key = key[len(prefix):]
		if len(key) != 12 {
			return fmt.Errorf("damaged key of a child: %x", key)
		}
		visit(binary.BigEndian.Uint32(key), ChildKey(binary.BigEndian.Uint64(key[4:])))
		return nil
	})
}

func (s *childStore) begin() { s.fresh = s.fresh[:0] }

func (s *childStore) store(b *pebble.Batch, repository string, digests []string) error {
	for _, d := range digests {
		k := childKey(repository, d)
		known, err := stored(b, childStoreKey(s.generation, k))
		if err != nil {
			return err
		}
		if known {
			continue
		}
		if err := s.turn(b); err != nil {
			return err
		}
		if err := b.Set(childStoreKey(s.generation, k), nil, nil); err != nil {
			return err
		}
		s.count++
		s.fresh = append(s.fresh, k)
	}
	return nil
}

// turn begins the next generation if this one is full, and drops the one
// before this.
func (s *childStore) turn(b *pebble.Batch) error {
	if s.count < s.half {
		return nil
	}
	s.generation, s.count = s.generation+1, 0
	if s.generation < 2 {
		return nil
	}
	return b.DeleteRange([]byte(childPrefix), childStoreKey(s.generation-1, 0), nil)
}

// stored tells whether the key is there; many events list the same children.
func stored(b pebble.Reader, key []byte) (bool, error) {
	_, closer, err := b.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

func (s *childStore) committed() {
	room := maxUnshared - len(s.unshared)
	s.unshared = append(s.unshared, s.fresh[:min(room, len(s.fresh))]...)
}
