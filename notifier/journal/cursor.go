package journal

import (
	"fmt"
	"maps"
	"slices"
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

func (j *Journal) checkCursor(s Stream, name string, seq uint64) error {
	st := j.streams[s]
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return ErrClosed
	}
	if seq > st.durableLast {
		return fmt.Errorf("move cursor %s: event %d is beyond the last of %s, %d", name, seq, s, st.durableLast)
	}
	return nil
}

// SetCursorLazily is SetCursor for a reader that keeps its cursor elsewhere, and costs
// nothing: the registered cursor moves on disk with the next write of the
// state, at the latest before an event that it holds back is deleted.
func (j *Journal) SetCursorLazily(s Stream, name string, seq uint64) error {
	if err := j.checkCursor(s, name, seq); err != nil {
		return err
	}
	st := j.streams[s]
	st.mu.Lock()
	st.noted[name] = max(seq, st.noted[name])
	st.mu.Unlock()
	st.retain()
	return nil
}

// AdvanceTo is for a reader that keeps its cursor elsewhere, in one transaction
// with what it does. Called at start with that cursor, it makes a journal that
// is behind it (power cut, restored snapshot) take a new id, as Open does for
// the journal's own cursors; the next event's number is then above seq.
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

// RenewID takes a new id now, since the folder was set back or copied in a way
// that the journal cannot see. The numbers of s go on above above, its last
// event and all of its cursors, also after a restart.
func (j *Journal) RenewID(s Stream, above uint64) error {
	st := j.streams[s]
	if st.isClosed() {
		return ErrClosed
	}
	for _, seq := range j.Cursors(s) {
		above = max(above, seq)
	}
	st.tail.Lock()
	defer st.tail.Unlock()
	if err := j.renew(s, above); err != nil {
		return err
	}
	if _, err := st.begin(); err != nil {
		return fmt.Errorf("take a new journal id: %w", diskError(err))
	}
	return nil
}

// renew takes a new id and begins behind seq.
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
	j.log.Warn("the journal takes a new id: it is older than a reader of it, after a power cut or from a backup",
		"stream", s, "last", j.Status(s).Last, "above", seq, "id", id)
	j.streams[s].jump(seq)
	return nil
}

// cursors returns the cursors as far as their readers have come. mu is held.
func (s *stream) cursors() map[string]uint64 {
	cursors := s.j.Cursors(s.kind)
	for name, seq := range cursors {
		cursors[name] = max(seq, s.noted[name])
	}
	return cursors
}

// passed is the last event that every cursor has passed. mu is held.
func (s *stream) passed() uint64 {
	cursors := s.cursors()
	if len(cursors) == 0 {
		return 0
	}
	return slices.Min(slices.Collect(maps.Values(cursors)))
}
