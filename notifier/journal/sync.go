package journal

import (
	"context"
	"errors"
	"slices"
	"time"
)

// A round is one fsync on behalf of all who wait for it. It covers what was
// written when it began.
type round struct {
	target pos
	last   uint64
	done   chan struct{}
	err    error // once done is closed
}

var (
	errLost      = errors.New("an earlier fsync of this segment failed")
	errForfeited = errors.New("the disk lost the record after a failed fsync")
)

// syncTo returns once everything before end is durable, joining the round in
// progress or the one after it.
func (s *stream) syncTo(ctx context.Context, late time.Time, end pos) error {
	for {
		s.mu.Lock()
		if s.lost(end) {
			s.mu.Unlock()
			return errForfeited
		}
		if s.durable >= end {
			s.mu.Unlock()
			return nil
		}
		if s.finished {
			s.mu.Unlock()
			return ErrClosed
		}
		r := s.ensureRound()
		s.mu.Unlock()
		if err := await(ctx, late, r.done); err != nil {
			return err
		}
		if r.err != nil && r.target >= end {
			return r.err
		}
	}
}

// lost reports whether the disk lost the record that ends at end. mu is held.
func (s *stream) lost(end pos) bool {
	return slices.ContainsFunc(s.forfeited, func(lost span) bool { return lost.from < end && end <= lost.to })
}

// syncAll is syncTo for those who have no deadline of their own.
func (s *stream) syncAll() error {
	s.mu.Lock()
	end := s.written
	s.mu.Unlock()
	return s.syncTo(context.Background(), s.late(), end)
}

// ensureRound returns the round in progress, or begins one. mu is held.
func (s *stream) ensureRound() *round {
	if s.round == nil {
		s.round = &round{target: s.written, last: s.last, done: make(chan struct{})}
		go s.run(s.round)
	}
	return s.round
}

func (s *stream) run(r *round) {
	s.flush.Lock()
	err := s.sync(r.target, r.last)
	s.flush.Unlock()
	if err != nil {
		s.j.log.Error("cannot fsync the journal", "stream", s.kind, "err", err)
		err = s.rescue(r.target)
	}
	s.mu.Lock()
	s.round = nil
	r.err = diskError(err)
	s.idle.Broadcast()
	s.mu.Unlock()
	close(r.done)
}

// rescue moves what is not durable to a new segment, unless the writer did.
func (s *stream) rescue(target pos) error {
	s.tail.Lock()
	defer s.tail.Unlock()
	s.mu.Lock()
	done := s.durable >= target
	s.mu.Unlock()
	if done {
		return nil
	}
	_, err := s.begin()
	return err
}

// sync makes everything before target durable, where last was the last
// event. After an error nothing that it covered is trusted: the segments are
// marked, never written again, and never synced again. flush is held.
func (s *stream) sync(target pos, last uint64) error {
	s.mu.Lock()
	if s.durable >= target {
		s.mu.Unlock()
		return nil
	}
	var dirty []*segment
	for _, g := range s.segments {
		if g.number <= target.segment() && at(g.number, g.end) > s.durable {
			dirty = append(dirty, g)
		}
	}
	names := s.newNames
	s.mu.Unlock()

	err := s.syncFiles(dirty, names > 0)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		for _, g := range dirty {
			g.lost = true
		}
		s.active = nil
		return err
	}
	s.newNames -= names
	s.durable, s.durableLast = target, last
	s.forgetSettled()
	for i, g := range s.segments {
		if g.file != nil && i < len(s.segments)-1 && at(g.number, g.end) <= s.durable {
			g.file.Close()
			g.file = nil
		}
	}
	return nil
}

func (s *stream) syncFiles(dirty []*segment, names bool) error {
	for _, g := range dirty {
		if g.lost {
			return errLost
		}
	}
	for _, g := range dirty {
		if err := g.file.Sync(); err != nil {
			return err
		}
	}
	if !names {
		return nil
	}
	return s.j.fs.SyncDir(s.j.cfg.Dir)
}
