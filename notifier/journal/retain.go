package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
)

// retain deletes the oldest segments as long as every cursor has passed them
// or the stream is above its limit. Open intents in them move to the end of the
// stream first. If another call is at it already, that one does it.
func (s *stream) retain() {
	s.retainNow.Store(true)
	for s.retainNow.Load() && s.retaining.TryLock() {
		s.retainNow.Store(false)
		err := s.deleteExpired()
		s.retaining.Unlock()
		if err != nil && !errors.Is(err, ErrClosed) && err != errHeld {
			s.j.log.Error("cannot delete a journal segment", "stream", s.kind, "err", err)
		}
	}
}

// retainSoon is retain for those who cannot wait for it.
func (s *stream) retainSoon() {
	if len(s.expired()) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.j.background.Go(s.retain)
	}
}

func (s *stream) deleteExpired() error {
	if err := s.removeDoomed(); err != nil {
		return err
	}
	for {
		expired := s.expired()
		if len(expired) == 0 {
			return nil
		}
		for _, g := range expired {
			if err := s.move(g); err != nil {
				return err
			}
			if err := s.syncAll(); err != nil { // what moved or settled an intent in g must outlive it
				return err
			}
			if err := s.giveUp(g); err != nil {
				return err
			}
			if err := s.delete(g); err != nil {
				return err
			}
		}
	}
}

// expired returns the oldest segments that can go: every cursor has passed
// them, or the stream is above its limit, of which nobody is told before Open
// returns. At most half of their bytes are open intents, which have to move:
// so moving ends, and costs less than it frees.
func (s *stream) expired() []*segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.segments) < 2 {
		return nil
	}
	open := map[uint64]int64{} // bytes by segment
	for _, in := range s.intents {
		if !in.dropped {
			open[in.place.segment()] += in.size()
		}
	}
	var events, files int64
	for _, g := range s.segments {
		events += g.events
		files += g.end
	}
	passed, limit := s.passed(), s.j.cfg.Limit
	var size, moving int64
	n := 0
	for i, g := range s.segments[:len(s.segments)-1] {
		over := s.j.opened.Load() && (events > limit || files > 2*limit)
		if g.last > passed && !over {
			break
		}
		events -= g.events
		files -= g.end
		size += g.end
		moving += open[g.number]
		if 2*moving <= size {
			n = i + 1
		}
	}
	return slices.Clone(s.segments[:n])
}

// giveUp moves every cursor behind g. Of events that its reader has not passed
// whoever wants to know is told first.
func (s *stream) giveUp(g *segment) error {
	s.mu.Lock()
	cursors := s.cursors()
	s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(cursors)) {
		first := max(cursors[name]+1, g.first)
		if first > g.last {
			continue
		}
		if s.j.cfg.Dropped != nil {
			if err := s.j.cfg.Dropped(s.kind, name, first, g.last, s.between(first, g.last)); err != nil {
				return fmt.Errorf("give up events %d to %d of %s: %w", first, g.last, name, err)
			}
		}
		s.mu.Lock()
		s.noted[name] = max(s.noted[name], g.last)
		s.mu.Unlock()
		s.j.log.Warn("the journal is at its limit, a reader gives up its oldest events",
			"stream", s.kind, "cursor", name, "first", first, "last", g.last, "limit", s.j.cfg.Limit)
	}
	for _, seq := range s.j.Cursors(s.kind) {
		if seq >= g.last {
			continue
		}
		// On a full disk g goes first, to make room. A crash then leaves a
		// cursor before g, whose reader jumps what is gone.
		if err := s.j.update(func(*state) {}); err != nil && !errors.Is(err, ErrFull) {
			return err
		}
		break
	}
	return nil
}

// between reads the events first to last, which are durable.
func (s *stream) between(first, last uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for after := first - 1; after < last; {
			entries, err := s.read(after, 100, 1<<20)
			if err != nil && len(entries) == 0 {
				yield(Entry{}, err)
				return
			}
			if len(entries) == 0 {
				return
			}
			for _, e := range entries {
				if e.Seq > last || !yield(e, nil) {
					return
				}
				after = e.Seq
			}
		}
	}
}

// errHeld: an intent is being settled, and only its record tells of it as yet.
var errHeld = errors.New("an intent in the segment is being settled")

func (s *stream) delete(g *segment) error {
	s.flush.Lock()
	defer s.flush.Unlock()
	if err := s.take(g); err != nil {
		return err
	}
	return s.removeDoomed()
}

// take takes g out of the stream, and dooms its file.
func (s *stream) take(g *segment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return ErrClosed
	}
	if s.holds(g) {
		return errHeld
	}
	s.dropWith(g)
	s.segments = slices.DeleteFunc(s.segments, func(x *segment) bool { return x == g })
	s.readers = slices.DeleteFunc(s.readers, func(r *reader) bool {
		if r.segment == g {
			r.file.Close()
		}
		return r.segment == g
	})
	if g.file != nil {
		g.file.Close()
	}
	s.doomed = g.path
	return nil
}

// removeDoomed deletes the file of the segment that was taken out last. None
// goes before it: should an older segment come back without a newer one, an
// intent in it would seem open whose completion is gone.
func (s *stream) removeDoomed() error {
	if s.doomed == "" {
		return nil
	}
	if err := s.j.fs.Remove(s.doomed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.j.fs.SyncDir(s.j.cfg.Dir); err != nil {
		return err
	}
	s.doomed = ""
	return nil
}
