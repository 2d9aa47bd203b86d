package state

import "bytes"

// A Batch is a list of changes that a Store commits together, in the order in
// which they were added. The zero value is an empty batch. Keys and values must
// not be changed after they were added. A batch is not safe for concurrent use.
type Batch struct {
	changes []change
	latest  map[string]int // index of the last change of each key; nil until Get
	ranges  []int          // indexes of the deletions of ranges
}

type changeKind uint8

const (
	changeSet changeKind = iota
	changeDelete
	changeDeleteRange
)

type change struct {
	kind  changeKind
	key   []byte
	value []byte // of a range: its end
}

// Set sets the value of a key.
func (b *Batch) Set(key, value []byte) { b.add(change{changeSet, key, value}) }

// Delete deletes a key, if it exists.
func (b *Batch) Delete(key []byte) { b.add(change{changeDelete, key, nil}) }

// DeleteRange deletes the keys of a range.
func (b *Batch) DeleteRange(r Range) { b.add(change{changeDeleteRange, r.From, r.To}) }

func (b *Batch) add(c change) {
	if c.kind == changeDeleteRange {
		b.ranges = append(b.ranges, len(b.changes))
	}
	if b.latest != nil && c.kind != changeDeleteRange {
		b.latest[string(c.key)] = len(b.changes)
	}
	b.changes = append(b.changes, c)
}

// Get returns the value that a key will have once the batch is committed to s, or
// ErrNotFound.
func (b *Batch) Get(s Store, key []byte) ([]byte, error) {
	if b.latest == nil {
		b.latest = map[string]int{}
		for i, c := range b.changes {
			if c.kind != changeDeleteRange {
				b.latest[string(c.key)] = i
			}
		}
	}
	at, changed := b.latest[string(key)]
	if !changed {
		at = -1
	}
	for _, i := range b.ranges {
		if c := b.changes[i]; i > at && bytes.Compare(c.key, key) <= 0 && bytes.Compare(key, c.value) < 0 {
			return nil, ErrNotFound
		}
	}
	switch {
	case !changed:
		return s.Get(key)
	case b.changes[at].kind == changeDelete:
		return nil, ErrNotFound
	}
	return bytes.Clone(b.changes[at].value), nil
}
