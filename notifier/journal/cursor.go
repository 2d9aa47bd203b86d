package journal

import (
	"fmt"
	"maps"
)

// Register makes a cursor known at 0, so that nothing it has not read is
// deleted. It does nothing for a known one.
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

// Forget removes a cursor whose reader is gone for good, so that it no
// longer holds events back.
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

// Cursor returns the number of the last event that the cursor has passed.
func (j *Journal) Cursor(s Stream, name string) uint64 {
	return j.state.Load().Cursors[s.String()][name]
}

// Cursors returns all cursors of a stream.
func (j *Journal) Cursors(s Stream) map[string]uint64 {
	return maps.Clone(j.state.Load().Cursors[s.String()])
}

// SetCursor moves a cursor forward, durably, and deletes segments that every
// cursor has passed. A number at or below the cursor's does nothing; one
// above the last durable event is an error.
func (j *Journal) SetCursor(s Stream, name string, seq uint64) error {
	if j.streams[s].isClosed() {
		return ErrClosed
	}
	st := j.streams[s]
	st.mu.Lock()
	last := st.durableLast
	st.mu.Unlock()
	if seq > last {
		return fmt.Errorf("move cursor %s: event %d is beyond the last of %s, %d", name, seq, s, last)
	}
	if err := j.advance(s, name, seq); err != nil {
		return fmt.Errorf("move cursor %s: %w", name, err)
	}
	st.retain()
	return nil
}

func (j *Journal) advance(s Stream, name string, seq uint64) error {
	if old, known := j.state.Load().Cursors[s.String()][name]; known && old >= seq {
		return nil
	}
	return j.update(func(st *state) {
		st.set(s, name, max(seq, st.Cursors[s.String()][name]))
	})
}

// Follow is for a reader that keeps its cursor elsewhere, in one transaction
// with what it does. Called at start with that cursor, it makes a journal that
// is behind it (power cut, restored snapshot) take a new id, as Open does for
// the journal's own cursors; the next event's number is then above seq.
func (j *Journal) Follow(s Stream, seq uint64) error {
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

// renew takes a new id and begins behind seq.
func (j *Journal) renew(s Stream, seq uint64) error {
	id := random()
	if err := j.update(func(st *state) { st.ID = id }); err != nil {
		return fmt.Errorf("take a new journal id: %w", err)
	}
	j.id.Store(number(id))
	j.log.Warn("the journal is behind one of its readers, after a power cut or a restored backup; it takes a new id",
		"stream", s, "last", j.Status(s).Last, "reader", seq, "id", id)
	j.streams[s].jump(seq)
	return nil
}

// passed is the last event that every cursor has passed.
func (j *Journal) passed(s Stream) uint64 {
	cursors := j.state.Load().Cursors[s.String()]
	if len(cursors) == 0 {
		return 0
	}
	lowest := ^uint64(0)
	for _, seq := range cursors {
		lowest = min(lowest, seq)
	}
	return lowest
}
