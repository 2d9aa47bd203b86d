package journal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// retain deletes the oldest segments as long as every cursor has passed them
// or the stream is above its limit. An open intent holds its segment in
// either case. If another call is at it already, that one does it.
func (s *stream) retain() { s.retainTo(true) }

// retainTo leaves the limit alone without limited.
func (s *stream) retainTo(limited bool) {
	if !s.retaining.TryLock() {
		return
	}
	defer s.retaining.Unlock()
	for {
		g, over := s.deletable()
		if g == nil {
			return
		}
		passed := g.last <= s.j.passed(s.kind)
		if !passed && !(over && limited) {
			return
		}
		err := s.syncAll() // what settles an intent in g must outlive it
		if err == nil && !passed {
			err = s.giveUp(g)
		}
		if err == nil {
			err = s.delete(g)
		}
		if errors.Is(err, ErrClosed) {
			return // the next start goes on
		}
		if err != nil {
			s.j.log.Error("cannot delete a journal segment", "stream", s.kind, "file", g.path, "err", err)
			return
		}
	}
}

// retainSoon is retain for those who cannot wait for it.
func (j *Journal) retainSoon(s *stream) {
	if g, over := s.deletable(); g == nil || !over && g.last > j.passed(s.kind) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	j.background.Go(s.retain)
}

// deletable returns the oldest segment if nothing but cursors holds it, and
// whether the stream is above its limit.
func (s *stream) deletable() (g *segment, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.segments) < 2 {
		return nil, false
	}
	g = s.segments[0]
	for _, in := range s.intents {
		if in.place.segment() <= g.number {
			return nil, false
		}
	}
	var bytes int64
	for _, g := range s.segments {
		bytes += g.end
	}
	return g, bytes > s.j.cfg.Limit
}

// giveUp moves every cursor behind g, telling whoever wants to know first.
func (s *stream) giveUp(g *segment) error {
	cursors := s.j.Cursors(s.kind)
	for _, name := range slices.Sorted(maps.Keys(cursors)) {
		first := max(cursors[name]+1, g.first)
		if first > g.last {
			continue
		}
		if s.j.cfg.Dropped != nil {
			if err := s.j.cfg.Dropped(s.kind, name, first, g.last); err != nil {
				return fmt.Errorf("give up events %d to %d of %s: %w", first, g.last, name, err)
			}
		}
		if err := s.j.advance(s.kind, name, g.last); err != nil {
			return err
		}
		s.j.log.Warn("the journal is at its limit, a reader gives up its oldest events",
			"stream", s.kind, "cursor", name, "first", first, "last", g.last, "limit", s.j.cfg.Limit)
	}
	return nil
}

func (s *stream) delete(g *segment) error {
	s.flush.Lock()
	defer s.flush.Unlock()
	s.mu.Lock()
	if s.finished {
		s.mu.Unlock()
		return ErrClosed
	}
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
	s.mu.Unlock()
	if err := s.j.fs.Remove(g.path); err != nil {
		return err
	}
	// In order: should a power cut bring back an older segment without a newer
	// one, an intent in it would seem open whose completion is gone.
	return s.j.fs.SyncDir(s.j.cfg.Dir)
}
