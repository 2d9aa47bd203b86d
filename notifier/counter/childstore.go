package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// childStore keeps children on disk in generations, like children does in memory: when
// one has half of the limit the next begins, and the one before it is dropped.
type childStore struct {
	half       int
	generation uint32
	count      int          // in this generation
	added      []IndexEntry // in this fold
	unsent     []IndexEntry // not sent to the other registries yet
}

// maxUnsent bounds unsent while Redis is unavailable. What does not fit is learned by
// the other registries when they serve the index.
const maxUnsent = 1 << 14

func (c *Counter) loadChildren() error {
	s := childStore{half: max(c.cfg.MaxChildren/2, 1), unsent: c.children.unsent}
	err := c.scanChildren(func(generation uint32, _ IndexEntry) {
		if generation != s.generation {
			s.generation, s.count = generation, 0
		}
		s.count++
	})
	c.children = s
	return err
}

// Children returns the stored entries, oldest generation first, for Classifier.Learn.
func (c *Counter) Children() ([]IndexEntry, error) {
	var all []IndexEntry
	err := c.scanChildren(func(_ uint32, l IndexEntry) { all = append(all, l) })
	if err != nil {
		return nil, fmt.Errorf("load children: %w", err)
	}
	return all, nil
}

func (c *Counter) scanChildren(visit func(generation uint32, l IndexEntry)) error {
	prefix := []byte(childPrefix)
	return scan(c.db, prefix, func(key, _ []byte) error {
		key = key[len(prefix):]
		switch len(key) {
		case 12: // written by earlier versions, without the index
			visit(binary.BigEndian.Uint32(key), IndexEntry{Child: ChildKey(binary.BigEndian.Uint64(key[4:]))})
		case 20:
			visit(binary.BigEndian.Uint32(key), IndexEntry{
				Index: ChildKey(binary.BigEndian.Uint64(key[4:])), Child: ChildKey(binary.BigEndian.Uint64(key[12:])),
			})
		default:
			return fmt.Errorf("damaged child key %x", key)
		}
		return nil
	})
}

func (s *childStore) begin() { s.added = s.added[:0] }

// fold stores what a fact says about indexes and artifacts.
func (s *childStore) fold(b *pebble.Batch, fact *Fact) error {
	k := childKey(fact.Repository, fact.Digest)
	if fact.Deleted && fact.Tag == "" {
		s.added = append(s.added, IndexEntry{Index: k, Deleted: true})
		return s.remove(b, k)
	}
	for _, child := range fact.Children {
		if err := s.store(b, IndexEntry{Index: k, Child: childKey(fact.Repository, child)}); err != nil {
			return err
		}
	}
	if fact.Supporting {
		return s.store(b, IndexEntry{Index: artifacts, Child: k.supporting()})
	}
	if _, ok := ReferrersTag(fact.Tag); ok && fact.Digest != "" {
		return s.store(b, IndexEntry{Index: artifacts, Child: k.referring()})
	}
	return nil
}

func (s *childStore) store(b *pebble.Batch, l IndexEntry) error {
	known, err := exists(b, childStoreKey(s.generation, l))
	if err != nil || known {
		return err
	}
	if err := s.nextGeneration(b); err != nil {
		return err
	}
	if err := b.Set(childStoreKey(s.generation, l), nil, nil); err != nil {
		return err
	}
	s.count++
	s.added = append(s.added, l)
	return nil
}

// remove deletes what an index lists. The count stays, so the generation ends sooner.
func (s *childStore) remove(b *pebble.Batch, index ChildKey) error {
	for back := range min(s.generation+1, 2) {
		prefix := childStoreKey(s.generation-back, IndexEntry{Child: index})
		if err := b.DeleteRange(prefix, after(prefix), nil); err != nil {
			return err
		}
	}
	return nil
}

// nextGeneration begins the next generation if this one is full, and drops the one
// before this.
func (s *childStore) nextGeneration(b *pebble.Batch) error {
	if s.count < s.half {
		return nil
	}
	s.generation, s.count = s.generation+1, 0
	if s.generation < 2 {
		return nil
	}
	return b.DeleteRange([]byte(childPrefix), childStoreKey(s.generation-1, IndexEntry{}), nil)
}

// exists reports whether a key is there.
func exists(b pebble.Reader, key []byte) (bool, error) {
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
	room := maxUnsent - len(s.unsent)
	s.unsent = append(s.unsent, s.added[:min(room, len(s.added))]...)
}
