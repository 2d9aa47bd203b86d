package deadletters

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
)

var (
	// ErrNotFound is returned for a letter that does not exist.
	ErrNotFound = errors.New("no such dead letter")
	// ErrCursor is returned for a cursor that List has not returned.
	ErrCursor = errors.New("invalid cursor of dead letters")
)

// List returns letters of a sink, "" for all sinks, without their events and in the order
// of their keys, and the cursor of the next page, "" if there is none. The first page also
// has the letters that are in memory.
func (d *Store) List(sink, cursor string, limit int) (page []Letter, next string, err error) {
	r := state.Prefix(state.DeadLetters + sink)
	if cursor != "" {
		key, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || !strings.HasPrefix(string(key), state.DeadLetters) {
			return nil, "", ErrCursor
		}
		r = r.After(key)
	} else if page, err = d.unwritten(sink); err != nil {
		return nil, "", err
	}
	var last []byte
	err = d.db.Scan(r, func(key, val []byte) error {
		if sink != "" && parseBox(key).Sink != sink {
			return nil
		}
		if len(page) >= limit {
			next = base64.RawURLEncoding.EncodeToString(last)
			return state.ErrStop
		}
		l, err := decodeLetter(withoutEvent(val))
		if err == nil {
			page, last = append(page, *l), bytes.Clone(key)
		}
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("read dead letters: %w", err)
	}
	return page, next, nil
}

// unwritten returns the letters that are in memory.
func (d *Store) unwritten(sink string) (letters []Letter, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return nil, err
	}
	for box, index := range d.boxes {
		if index.unwritten != nil && (sink == "" || box.Sink == sink) {
			letters = append(letters, *index.unwritten)
		}
	}
	return letters, nil
}

// Get returns a letter by the sequence number of its first event, or ErrNotFound.
func (d *Store) Get(box Box, first uint64) (*Letter, error) {
	_, l, err := d.get(box, first)
	return l, err
}

// get returns a letter and the box that it is in: letters of pulls may be among those of
// pushes, where older versions kept them.
func (d *Store) get(box Box, first uint64) (Box, *Letter, error) {
	for _, in := range slices.Compact([]Box{box, {box.Sink, journal.Pushes}}) {
		val, err := d.db.Get(in.key(first))
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return box, nil, fmt.Errorf("read dead letters: %w", err)
		}
		l, err := decodeLetter(val)
		if err != nil {
			return box, nil, err
		}
		if l.Stream == box.Stream.String() {
			return in, l, nil
		}
	}
	return box, nil, fmt.Errorf("%w: %s", ErrNotFound, box.Name(first))
}

// Drop removes a letter by the sequence number of its first event, durably.
func (d *Store) Drop(box Box, first uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, l, err := d.get(box, first)
	if err != nil {
		return err
	}
	if l.Retrying {
		return fmt.Errorf("%w: %s", ErrRetrying, box.Name(first))
	}
	return d.remove(in, first)
}

// remove removes a letter. The caller must hold mu.
func (d *Store) remove(box Box, first uint64) error {
	index, err := d.index(box)
	if err != nil {
		return err
	}
	val, err := d.db.Get(box.key(first))
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	l, err := decodeLetter(val)
	if err != nil {
		return err
	}
	if err := state.Delete(d.db, box.key(first), state.Sync); err != nil {
		return fmt.Errorf("remove dead letter: %w", err)
	}
	d.forget(index, box, l, len(val))
	return nil
}

// forget removes a letter that is removed from the state from the index. The caller must
// hold mu.
func (d *Store) forget(index *boxIndex, box Box, l *Letter, size int) {
	index.add(l, size, -1)
	index.spans = slices.DeleteFunc(slices.Clone(index.spans), func(s span) bool { return s.first == l.First })
	if box == uncountedBox {
		d.publicSeqs = slices.DeleteFunc(d.publicSeqs, func(seq uint64) bool { return seq == l.First })
	}
}
