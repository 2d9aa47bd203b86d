package journal

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Group fsync. An append of a push returns when its record is durable, and
// appends that wait at the same time share one fsync:
//
//   - startSync starts a groupSync if none is running. It covers the records written
//     before it started; appends written later wait for the next one.
//   - run syncs the segment files from durable to the target, then the directory if
//     segments were created, and only then advances s.durable.
//   - If an fsync fails, the kernel may already have dropped the dirty pages, so
//     a second fsync that succeeds would prove nothing. The segments are marked as
//     lost and are not written or synced again. moveUnsynced copies the records
//     after s.durable that can still be read and whose checksums are valid to a
//     new segment, and syncs that. The header of the new segment has the position at
//     which the stream before it ends, so that the originals are invalid.
//   - Records that cannot be read any more are listed in s.lostRanges; the appends
//     that wait for them return errLostRecord. Their numbers are not used again.
//   - Crash before the new segment is renamed: load reads the old segments as far as
//     they are on disk. Crash after it: load ignores the old tail.

// A groupSync is one fsync for all callers that wait for it.
type groupSync struct {
	target position
	last   uint64
	done   chan struct{}
	err    error // once done is closed
}

var (
	errLost       = errors.New("an earlier fsync of this segment failed")
	errLostRecord = errors.New("the disk lost the record after a failed fsync")
)

// syncTo returns once everything before end is durable. It waits for the fsync in
// progress and, if that does not cover end, for the next one.
func (s *stream) syncTo(ctx context.Context, deadline time.Time, end position) error {
	for {
		s.mu.Lock()
		if s.lost(end) {
			s.mu.Unlock()
			return errLostRecord
		}
		if s.durable >= end {
			s.mu.Unlock()
			return nil
		}
		if s.finished {
			s.mu.Unlock()
			return ErrClosed
		}
		r := s.startSync()
		s.mu.Unlock()
		if err := await(ctx, deadline, r.done); err != nil {
			return err
		}
		if r.err != nil && r.target >= end {
			return r.err
		}
	}
}

// lost reports whether the disk lost the record that ends at end. mu is held.
func (s *stream) lost(end position) bool {
	return slices.ContainsFunc(s.lostRanges, func(lost positionRange) bool { return lost.from < end && end <= lost.to })
}

// syncAll makes all written records durable, within Config.Wait.
func (s *stream) syncAll() error {
	s.mu.Lock()
	end := s.written
	s.mu.Unlock()
	return s.syncTo(context.Background(), s.deadline(), end)
}

// startSync returns the fsync in progress, or starts one. mu is held.
func (s *stream) startSync() *groupSync {
	if s.syncing == nil {
		s.syncing = &groupSync{target: s.written, last: s.last, done: make(chan struct{})}
		go s.run(s.syncing)
	}
	return s.syncing
}

func (s *stream) run(r *groupSync) {
	s.flush.Lock()
	err := s.sync(r.target, r.last)
	s.flush.Unlock()
	if err != nil {
		s.j.log.Error("cannot fsync the journal", "stream", s.kind, "error", err)
		err = s.moveUnsynced(r.target)
	}
	s.mu.Lock()
	s.syncing = nil
	r.err = diskError(err)
	s.idle.Broadcast()
	s.mu.Unlock()
	close(r.done)
}

// moveUnsynced moves the records that are not durable to a new segment, unless the
// writer has done so.
func (s *stream) moveUnsynced(target position) error {
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

// sync makes everything before target durable; last is the number of the last
// event before target. After an error the segments that it covered are marked as
// lost. flush is held.
func (s *stream) sync(target position, last uint64) error {
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
	s.forgetEnded()
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
