package journal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Register creates a cursor at 0 unless it exists. Events after a registered
// cursor are kept, up to the limit.
func (j *Journal) Register(s Stream, name string) error {
	if j.streams[s].isClosed() {
		return ErrClosed
	}
	if _, known := j.state.Load().Cursors[s.String()][name]; known {
		return nil
	}
	return j.update(func(st *state) {
		if _, known := st.Cursors[s.String()][name]; !known {
			st.set(s, name, 0)
		}
	})
}

// RegisterAtEnd is Register for a reader of what is recorded from now on: a new cursor
// begins after the last event.
func (j *Journal) RegisterAtEnd(s Stream, name string) error {
	last := j.Status(s).Last
	if j.streams[s].isClosed() {
		return ErrClosed
	}
	if _, known := j.state.Load().Cursors[s.String()][name]; known {
		return nil
	}
	return j.update(func(st *state) {
		if _, known := st.Cursors[s.String()][name]; !known {
			st.set(s, name, last)
		}
	})
}

// Forget deletes a cursor whose reader no longer exists, so that events are
// not kept for it.
func (j *Journal) Forget(s Stream, name string) error {
	if j.streams[s].isClosed() {
		return ErrClosed
	}
	if _, known := j.state.Load().Cursors[s.String()][name]; !known {
		return nil
	}
	if err := j.update(func(st *state) { delete(st.Cursors[s.String()], name) }); err != nil {
		return err
	}
	j.streams[s].retain()
	return nil
}

// Cursor returns the sequence number of the last event that was processed.
func (j *Journal) Cursor(s Stream, name string) uint64 {
	return j.state.Load().Cursors[s.String()][name]
}

// Cursors returns all cursors of a stream.
func (j *Journal) Cursors(s Stream) map[string]uint64 {
	return maps.Clone(j.state.Load().Cursors[s.String()])
}

// SetCursor moves a cursor forward, durably, and deletes segments that every
// cursor has passed. It has no effect if seq is not above the cursor; a seq
// above the last durable event is an error.
func (j *Journal) SetCursor(s Stream, name string, seq uint64) error {
	if err := j.checkCursor(s, name, seq); err != nil {
		return err
	}
	if old, known := j.state.Load().Cursors[s.String()][name]; !known || old < seq {
		err := j.update(func(st *state) {
			st.set(s, name, max(seq, st.Cursors[s.String()][name]))
		})
		if err != nil {
			return fmt.Errorf("move cursor %s: %w", name, err)
		}
	}
	j.streams[s].retain()
	return nil
}

// ErrGone is returned, wrapped, by Rewind for events that the journal does not have any more.
var ErrGone = errors.New("events are not in the journal any more")

// Rewind moves a cursor back, durably, so that its reader reads the events after seq again.
func (j *Journal) Rewind(s Stream, name string, seq uint64) error {
	st := j.streams[s]
	defer st.retain() // a call that could not delete segments meanwhile relies on it
	st.retaining.Lock()
	defer st.retaining.Unlock()
	if err := j.checkCursor(s, name, seq); err != nil {
		return err
	}
	if first := j.Status(s).First; seq+1 < first {
		return fmt.Errorf("%w: the first one of %s is %d", ErrGone, s, first)
	}
	if j.Cursor(s, name) <= seq {
		return nil
	}
	st.mu.Lock()
	delete(st.lazyCursors, name)
	st.mu.Unlock()
	if err := j.update(func(st *state) { st.set(s, name, seq) }); err != nil {
		return fmt.Errorf("move cursor %s back: %w", name, err)
	}
	return nil
}

func (j *Journal) checkCursor(s Stream, name string, seq uint64) error {
	st := j.streams[s]
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return ErrClosed
	}
	if seq > st.durableLast {
		return fmt.Errorf("move cursor %s: event %d is after the last event of %s, %d", name, seq, s, st.durableLast)
	}
	return nil
}

// SetCursorLazily is SetCursor without a write to disk, for a reader that stores
// its cursor elsewhere: the cursor is persisted with the next write of the
// state, at the latest before an event after it is deleted.
func (j *Journal) SetCursorLazily(s Stream, name string, seq uint64) error {
	if err := j.checkCursor(s, name, seq); err != nil {
		return err
	}
	st := j.streams[s]
	st.mu.Lock()
	st.lazyCursors[name] = max(seq, st.lazyCursors[name])
	st.mu.Unlock()
	st.retain()
	return nil
}

// AdvanceTo ensures that the next event of s has a number above seq. It is called
// at start, before any append, with the cursor of a reader that stores it
// elsewhere, in one transaction with its effects. If the journal is behind that
// cursor (power cut, restored snapshot), it takes a new id, as Open does for the
// journal's own cursors.
func (j *Journal) AdvanceTo(s Stream, seq uint64) error {
	st := j.streams[s]
	st.mu.Lock()
	closed, behind := st.closed, seq > st.last
	st.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if !behind {
		return nil
	}
	return j.renew(s, seq)
}

// renew takes a new id and continues after the event seq.
func (j *Journal) renew(s Stream, seq uint64) error {
	id := random()
	err := j.update(func(st *state) {
		st.ID = id
		if st.Jumped == nil {
			st.Jumped = map[string]uint64{}
		}
		st.Jumped[s.String()] = seq
	})
	if err != nil {
		return fmt.Errorf("take a new journal id: %w", err)
	}
	j.id.Store(number(id))
	j.log.Warn("the journal takes a new id: it is behind one of its readers, after a power cut or a restore",
		"stream", s, "last", j.Status(s).Last, "above", seq, "id", id)
	j.streams[s].skipTo(seq)
	return nil
}

// cursors returns the cursors, including those not yet persisted. mu is held.
func (s *stream) cursors() map[string]uint64 {
	cursors := s.j.Cursors(s.kind)
	for name, seq := range cursors {
		cursors[name] = max(seq, s.lazyCursors[name])
	}
	return cursors
}

// passed returns the lowest cursor. mu is held.
func (s *stream) passed() uint64 {
	cursors := s.cursors()
	if len(cursors) == 0 {
		return 0
	}
	return slices.Min(slices.Collect(maps.Values(cursors)))
}
