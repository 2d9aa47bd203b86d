package deadletters

import (
	"cmp"
	"slices"

	"github.com/tidings-dev/tidings/notifier/state"
)

// A boxIndex is the part of a box that is kept in memory.
type boxIndex struct {
	letters   int
	bytes     int
	events    uint64
	unwritten *Letter // until the disk has free space
	spans     []span  // of the letters, ascending: Find reads the state only for these
}

// A span is the range of a letter's events.
type span struct{ first, last uint64 }

func (s span) compare(first uint64) int { return cmp.Compare(s.first, first) }

// insertSpan returns spans with one more, which replaces one that has the same first
// event. The slice that it got is not changed, since Find reads it without the lock.
func insertSpan(spans []span, s span) []span {
	at, found := slices.BinarySearchFunc(spans, s.first, span.compare)
	if at == len(spans) {
		return append(spans, s)
	}
	rest := spans[at:]
	if found {
		rest = rest[1:]
	}
	return slices.Concat(spans[:at], []span{s}, rest)
}

// spanOf returns the first event of the span that an event is in.
func spanOf(spans []span, seq uint64) (first uint64, ok bool) {
	at, found := slices.BinarySearchFunc(spans, seq, span.compare)
	if !found {
		at--
	}
	if at < 0 || spans[at].last < seq {
		return 0, false
	}
	return spans[at].first, true
}

// add adds a letter, or with n = -1 subtracts one that is deleted or replaced. Its
// span is removed by the caller.
func (c *boxIndex) add(l *Letter, size, n int) {
	if n > 0 {
		c.spans = insertSpan(c.spans, span{l.First, l.Last})
	}
	c.letters += n
	c.bytes += n * size
	c.events += uint64(n) * l.events()
}

// load builds the indexes, once. The caller holds mu.
func (d *Store) load() error {
	if d.boxes != nil {
		return nil
	}
	boxes := map[Box]*boxIndex{}
	err := d.scan(state.Prefix(state.DeadLetters), func(key, val []byte, l *Letter) bool {
		box := parseBox(key)
		if boxes[box] == nil {
			boxes[box] = &boxIndex{}
		}
		boxes[box].add(l, len(val), 1)
		return true
	})
	if err == nil {
		d.boxes = boxes
	}
	return err
}

// index returns the index of a box. The caller holds mu.
func (d *Store) index(box Box) (*boxIndex, error) {
	if err := d.load(); err != nil {
		return nil, err
	}
	if d.boxes[box] == nil {
		d.boxes[box] = &boxIndex{}
	}
	return d.boxes[box], nil
}
