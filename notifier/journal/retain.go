package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
)

// Retention. Segments are deleted oldest first, each in these steps:
//
//  1. Open intents in it are appended again, and everything is made durable,
//     including the records that ended other intents of the segment.
//  2. If it is deleted because of the limit, Config.Dropped gets the events that
//     each cursor has not reached. Then the cursors move past it, in journal.json.
//  3. It leaves s.segments, its file is removed and the directory synced, before
//     the next segment is touched: if an older segment came back after a power
//     cut without a newer one, an intent would seem open whose completion is gone.
//
// Crash after 1: the intents are there twice, which replaying ignores. Crash
// between Dropped and the write of the cursors: Dropped is called again for the
// same events. Crash after the cursors: the segment is deleted after the next Open.
// On a full disk the file is removed although journal.json cannot be written; a
// crash then leaves a cursor before the first event, and its reader skips the
// missing numbers. A failed removal is retried before any other (s.deleting).

// retain deletes the oldest segments that all cursors have passed, or that
// exceed the limit. If another call is running, that one does it.
func (s *stream) retain() {
	s.retainNow.Store(true)
	for s.retainNow.Load() && s.retaining.TryLock() {
		s.retainNow.Store(false)
		err := s.deleteExpired()
		s.retaining.Unlock()
		if err != nil && !errors.Is(err, ErrClosed) && err != errHeld {
			s.j.log.Error("cannot delete a journal segment", "stream", s.kind, "error", err)
		}
	}
}

// retainSoon runs retain in the background.
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
	if err := s.removeFile(); err != nil {
		return err
	}
	for {
		expired := s.expired()
		if len(expired) == 0 {
			return nil
		}
		for _, g := range expired {
			if err := s.moveIntents(g); err != nil {
				return err
			}
			if err := s.syncAll(); err != nil { // records that move or end an intent of g must be durable first
				return err
			}
			if err := s.advanceCursors(g); err != nil {
				return err
			}
			if err := s.delete(g); err != nil {
				return err
			}
		}
	}
}

// expired returns the oldest segments that can be deleted: all cursors have passed
// them or, after Open has returned, the stream exceeds its limit. At most half of
// their bytes are open intents, so that moving those frees more than it writes.
func (s *stream) expired() []*segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.segments) < 2 {
		return nil
	}
	open := map[uint64]int64{} // bytes by segment
	for _, in := range s.intents {
		if !in.abandonFailed {
			open[in.pos.segment()] += in.size()
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

// advanceCursors moves all cursors past g. Config.Dropped gets the events that
// a reader has not passed first.
func (s *stream) advanceCursors(g *segment) error {
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
				return fmt.Errorf("drop events %d to %d of %s: %w", first, g.last, name, err)
			}
		}
		s.mu.Lock()
		s.lazyCursors[name] = max(s.lazyCursors[name], g.last)
		s.mu.Unlock()
		s.j.log.Warn("the journal is at its limit; the oldest events of a reader are dropped",
			"stream", s.kind, "cursor", name, "first", first, "last", g.last, "limit", s.j.cfg.Limit)
	}
	for _, seq := range s.j.Cursors(s.kind) {
		if seq >= g.last {
			continue
		}
		// On a full disk, deleting g frees the space that the state needs.
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

// errHeld means that the segment has the only record of an intent that is being
// completed or abandoned.
var errHeld = errors.New("segment has an intent that is being completed")

func (s *stream) delete(g *segment) error {
	s.flush.Lock()
	defer s.flush.Unlock()
	if err := s.detach(g); err != nil {
		return err
	}
	return s.removeFile()
}

// detach removes g from the stream; removeFile then deletes its file.
func (s *stream) detach(g *segment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return ErrClosed
	}
	if s.needed(g) {
		return errHeld
	}
	s.forgetAbandoned(g)
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
	s.deleting = g.path
	return nil
}

// removeFile durably deletes the file of the segment that was detached last.
func (s *stream) removeFile() error {
	if s.deleting == "" {
		return nil
	}
	if err := s.j.fs.Remove(s.deleting); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.j.fs.SyncDir(s.j.cfg.Dir); err != nil {
		return err
	}
	s.deleting = ""
	return nil
}
