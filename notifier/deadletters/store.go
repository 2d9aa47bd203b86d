package deadletters

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Limits of a box. Beyond them the oldest quarter of its letters is merged into one,
// which has the number of their events.
const (
	maxLetters     = 100_000
	maxLetterBytes = 64 << 20
)

// A Store keeps the letters. A letter is durable before the cursor
// moves past its events. There is one exception: if the journal drops events because
// it is at its limit while the disk is full, their letter is in memory until there is
// free space. It is safe for concurrent use.
type Store struct {
	db         state.Store
	space      func() error
	maxLetters int
	maxBytes   int

	mu        sync.Mutex
	metrics   *sink.Metrics
	processed func(Box) (func(seq uint64) bool, error) // see SetProcessed
	boxes     map[Box]*boxIndex                        // nil: not read yet

	// The public ones of the pushes in uncountedBox, ascending: see pushrow.Public.
	public     func(repository string) bool // nil: none is public
	publicSeqs []uint64
}

// New returns a store that has its letters in db. space returns an error while the disk
// has too little free space.
func New(db state.Store, space func() error) *Store {
	none := func(Box) (func(uint64) bool, error) { return func(uint64) bool { return false }, nil }
	return &Store{db: db, space: space, maxLetters: maxLetters, maxBytes: maxLetterBytes, processed: none}
}

// SetMetrics sets the metrics that count events which the journal drops.
func (d *Store) SetMetrics(m *sink.Metrics) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.metrics = m
}

// SetPublic sets the function that decides what is public, and lists the public pushes.
func (d *Store) SetPublic(public func(repository string) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.public, d.publicSeqs = public, nil
	return d.scan(uncountedBox.keys(), func(_, _ []byte, l *Letter) bool {
		d.addPublic(l)
		return true
	})
}

// addPublic adds a letter of uncountedBox to publicSeqs if it is of a public push.
// The caller holds mu.
func (d *Store) addPublic(l *Letter) {
	if d.public == nil || l.Operation != event.OpPush || !d.public(l.Repository) {
		return
	}
	if at, found := slices.BinarySearch(d.publicSeqs, l.First); !found {
		d.publicSeqs = slices.Insert(d.publicSeqs, at, l.First)
	}
}

// Add keeps an event as a dead letter, durably.
func (d *Store) Add(s journal.Stream, sink string, seq uint64, reason string, payload []byte) error {
	return d.AddEach(Box{sink, s}, reason, []journal.Entry{{Seq: seq, Payload: payload}})
}

// AddEach keeps events as dead letters, durably and in one commit.
func (d *Store) AddEach(box Box, reason string, events []journal.Entry) error {
	letters := make([]Letter, len(events))
	for i, entry := range events {
		l := &letters[i]
		*l = Letter{First: entry.Seq, Last: entry.Seq, Reason: reason}
		l.keep(entry.Payload)
		if e, err := event.Decode(entry.Payload); err == nil {
			l.describe(e)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range letters {
		if err := d.again(box, &letters[i]); err != nil {
			return err
		}
	}
	return d.write(box, letters...)
}

// write makes letters of a box durable, together with the one that is in memory. The
// caller holds mu.
func (d *Store) write(box Box, letters ...Letter) error {
	index, err := d.index(box)
	if err != nil {
		return err
	}
	if index.unwritten != nil {
		letters = append(letters, *index.unwritten)
	}
	b, after := &state.Batch{}, *index
	after.unwritten = nil
	for i := range letters {
		if err := d.put(b, &after, box, &letters[i]); err != nil {
			return fmt.Errorf("write dead letter: %w", err)
		}
	}
	if err := d.db.Commit(b, state.Sync); err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	*index = after
	if index.letters > d.maxLetters || index.bytes > d.maxBytes {
		return d.merge(box, index)
	}
	return nil
}

// put adds a letter to b and to the index. It may replace a letter.
func (d *Store) put(b *state.Batch, index *boxIndex, box Box, l *Letter) error {
	l.Sink, l.Stream = box.Sink, box.Stream.String()
	if l.Time.IsZero() {
		l.Time = time.Now().UTC()
	}
	key := box.key(l.First)
	val, err := json.Marshal(l)
	if err != nil {
		return err
	}
	old, err := d.db.Get(key)
	if err == nil {
		var before Letter
		if err := json.Unmarshal(old, &before); err != nil {
			return err
		}
		index.add(&before, len(old), -1)
	} else if !errors.Is(err, state.ErrNotFound) {
		return err
	}
	index.add(l, len(val), 1)
	if box == uncountedBox {
		d.addPublic(l)
	}
	b.Set(key, val)
	return nil
}

// merge replaces the oldest quarter of a box's letters by one. The caller holds mu.
func (d *Store) merge(box Box, index *boxIndex) error {
	after := *index
	var merged Letter
	var last []byte
	n := 0
	err := d.scan(box.keys(), func(key, val []byte, l *Letter) bool {
		if n == 0 {
			merged.First = l.First
		}
		merged.Last = max(merged.Last, l.Last)
		merged.Events += l.events()
		merged.Time = l.Time
		after.add(l, len(val), -1)
		last = bytes.Clone(key)
		n++
		return n < max(2, index.letters/4)
	})
	if err != nil {
		return err
	}
	after.spans = slices.Clone(index.spans[min(n, len(index.spans)):])
	merged.Reason = fmt.Sprintf("there are more than %d letters or %d bytes of them; these were the oldest", d.maxLetters, d.maxBytes)
	merged.Sink, merged.Stream = box.Sink, box.Stream.String()
	val, err := json.Marshal(merged)
	if err != nil {
		return err
	}
	var b state.Batch
	b.DeleteRange(state.Range{From: box.key(merged.First), To: append(last, 0)})
	b.Set(box.key(merged.First), val)
	after.add(&merged, len(val), 1)
	if err := d.db.Commit(&b, state.Sync); err != nil {
		return fmt.Errorf("merge dead letters: %w", err)
	}
	if box == uncountedBox {
		d.publicSeqs = slices.DeleteFunc(d.publicSeqs, func(seq uint64) bool { return seq <= merged.Last })
	}
	*index = after
	return nil
}

// scan calls visit with the letters of a range of keys until it returns false.
func (d *Store) scan(r state.Range, visit func(key, val []byte, l *Letter) (more bool)) error {
	err := d.db.Scan(r, func(key, val []byte) error {
		l, err := decodeLetter(val)
		if err == nil && !visit(key, val, l) {
			err = state.ErrStop
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

// Find returns the letter of one event, without the event itself; false if the sink has not
// given it up, or so long ago that its letter was merged.
func (d *Store) Find(box Box, seq uint64) (Letter, bool, error) {
	d.mu.Lock()
	err := d.load()
	index := d.boxes[box]
	if err != nil || index == nil {
		d.mu.Unlock()
		return Letter{}, false, err
	}
	unwritten, spans := index.unwritten, index.spans
	d.mu.Unlock()
	if unwritten != nil && unwritten.covers(box.Stream, seq) {
		return *unwritten, true, nil
	}
	first, ok := spanOf(spans, seq)
	if !ok {
		return Letter{}, false, nil
	}
	val, err := d.db.Get(box.key(first))
	if errors.Is(err, state.ErrNotFound) {
		return Letter{}, false, nil
	}
	if err != nil {
		return Letter{}, false, fmt.Errorf("read dead letters: %w", err)
	}
	l, err := decodeLetter(withoutEvent(val))
	if err != nil || !l.covers(box.Stream, seq) {
		return Letter{}, false, err
	}
	return *l, true, nil
}

// Uncounted returns the sequence numbers of the newest pushes that were given up
// before they were counted, newest first, at most limit: all, or those that are
// public.
func (d *Store) Uncounted(limit int, all bool) ([]uint64, error) {
	if !all {
		d.mu.Lock()
		defer d.mu.Unlock()
		seqs := slices.Clone(d.publicSeqs[max(0, len(d.publicSeqs)-limit):])
		slices.Reverse(seqs)
		return seqs, nil
	}
	r := uncountedBox.keys()
	r.Reverse = true
	var seqs []uint64
	err := d.db.Scan(r, func(_, val []byte) error {
		if len(seqs) >= limit {
			return state.ErrStop
		}
		l, err := decodeLetter(withoutEvent(val))
		if err == nil && l.Operation == event.OpPush {
			seqs = append(seqs, l.First)
		}
		return err
	})
	return seqs, err
}

// Count returns how many events each box has letters of, also from before a restart.
// Letters in memory are written if there is free space by now.
func (d *Store) Count() (map[Box]int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return nil, err
	}
	counts := map[Box]int{}
	for box, index := range d.boxes {
		if index.unwritten != nil && d.space() == nil {
			if err := d.write(box); err != nil {
				return nil, err
			}
		}
		counts[box] = int(index.events)
		if index.unwritten != nil {
			counts[box] += int(index.unwritten.events())
		}
	}
	return counts, nil
}
