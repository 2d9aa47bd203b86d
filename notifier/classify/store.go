package classify

import (
	"encoding/binary"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
)

// Store keeps index entries on disk, so that a Classifier has them after a restart.
// Like the set in memory it has two generations: when the newer one has half of the limit,
// the older one is dropped and a new one is started.
//
// Keys, after the prefix that the Store is opened with:
//
//	GENERATION CHILD         child of an unknown index, written by earlier versions
//	GENERATION INDEX CHILD   child of an index, or an artifact
//
// A generation has 4 bytes and a ManifestKey 8, in big endian. Values are empty.
//
// Changes are part of the caller's batch. If the commit fails, the Store must be opened
// again. A Store is not safe for concurrent use.
type Store struct {
	prefix     []byte
	half       int
	generation uint32
	count      int          // in this generation
	added      []IndexEntry // since Begin
}

// OpenStore opens the entries under a prefix. limit is the number of entries that are
// kept, at least 2.
func OpenStore(r store.Reader, prefix string, limit int) (*Store, error) {
	s := &Store{prefix: []byte(prefix), half: max(limit/2, 1)}
	err := s.scan(r, func(generation uint32, _ IndexEntry) {
		if generation != s.generation {
			s.generation, s.count = generation, 0
		}
		s.count++
	})
	return s, err
}

// Entries returns the stored entries, oldest generation first, for Classifier.Learn.
func (s *Store) Entries(r store.Reader) ([]IndexEntry, error) {
	var all []IndexEntry
	err := s.scan(r, func(_ uint32, l IndexEntry) { all = append(all, l) })
	return all, err
}

func (s *Store) scan(r store.Reader, visit func(generation uint32, l IndexEntry)) error {
	return store.Scan(r, s.prefix, func(key, _ []byte) error {
		key = key[len(s.prefix):]
		switch len(key) {
		case 12:
			visit(binary.BigEndian.Uint32(key), IndexEntry{Child: ManifestKey(binary.BigEndian.Uint64(key[4:]))})
		case 20:
			visit(binary.BigEndian.Uint32(key), IndexEntry{
				Index: ManifestKey(binary.BigEndian.Uint64(key[4:])), Child: ManifestKey(binary.BigEndian.Uint64(key[12:])),
			})
		default:
			return fmt.Errorf("damaged child key %x", key)
		}
		return nil
	})
}

func (s *Store) key(generation uint32, l IndexEntry) []byte {
	b := binary.BigEndian.AppendUint32(append([]byte(nil), s.prefix...), generation)
	if l.Index != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(l.Index))
	}
	return binary.BigEndian.AppendUint64(b, uint64(l.Child))
}

// Begin starts a batch.
func (s *Store) Begin() { s.added = s.added[:0] }

// Added returns the entries that were added since Begin, and one for each deleted manifest.
// They are valid until the next Begin.
func (s *Store) Added() []IndexEntry { return s.added }

// Add stores entries for a manifest: its children if it is an index, and that it is an
// artifact if it refers to another image (supporting) or has a referrers tag.
func (s *Store) Add(b store.Batch, repository, tag, digest string, children []string, supporting bool) error {
	k := KeyOf(repository, digest)
	for _, child := range children {
		if err := s.put(b, IndexEntry{Index: k, Child: KeyOf(repository, child)}); err != nil {
			return err
		}
	}
	if supporting {
		return s.put(b, IndexEntry{Index: artifacts, Child: k.supporting()})
	}
	if _, ok := ReferrersTag(tag); ok && digest != "" {
		return s.put(b, IndexEntry{Index: artifacts, Child: k.referring()})
	}
	return nil
}

// Delete deletes the children of a deleted manifest.
func (s *Store) Delete(b store.Batch, repository, digest string) error {
	deleted := IndexDeleted(repository, digest)
	s.added = append(s.added, deleted)
	return s.Remove(b, deleted.Index)
}

func (s *Store) put(b store.Batch, l IndexEntry) error {
	known, err := store.Has(b, s.key(s.generation, l))
	if err != nil || known {
		return err
	}
	if err := s.nextGeneration(b); err != nil {
		return err
	}
	if err := b.Set(s.key(s.generation, l), nil); err != nil {
		return err
	}
	s.count++
	s.added = append(s.added, l)
	return nil
}

// Remove deletes the children of an index. They still count, so the next generation is
// started a little earlier.
func (s *Store) Remove(b store.Batch, index ManifestKey) error {
	for back := range min(s.generation+1, 2) {
		prefix := s.key(s.generation-back, IndexEntry{Child: index})
		if err := b.DeleteRange(prefix, store.PrefixEnd(prefix)); err != nil {
			return err
		}
	}
	return nil
}

// nextGeneration starts a generation if the current one is full. The generation before
// the current one is dropped.
func (s *Store) nextGeneration(b store.Batch) error {
	if s.count < s.half {
		return nil
	}
	s.generation, s.count = s.generation+1, 0
	if s.generation < 2 {
		return nil
	}
	return b.DeleteRange(s.prefix, s.key(s.generation-1, IndexEntry{}))
}
