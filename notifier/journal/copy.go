package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tidings-dev/tidings/internal/private"
)

// Copies of a journal in use. A copy must have the cursors of a moment before the copy of
// the stores that the readers write to, and the events of a moment after it: a reader may
// then read events again whose effect its store has, as after a crash, but it misses
// none, and its store is never ahead of the journal. Therefore:
//
//  1. No segment is deleted until the end, since readers go on.
//  2. The state is taken, with the cursors as they are.
//  3. The caller copies the readers' stores.
//  4. All records are made durable, and the segments are copied up to there. Segments
//     that are not written any more are linked.

// Copy copies the journal to a new folder while it is in use. readers is called in the
// middle, and must copy all stores that readers of the journal write to. The contents of the
// files are durable when Copy returns, so that a backup can link them, but the folder is not.
func (j *Journal) Copy(dir string, readers func() error) error {
	for _, s := range j.streams {
		s.retaining.Lock()
		defer s.retain() // what was put off
		defer s.retaining.Unlock()
	}
	state, err := j.currentState()
	if err != nil {
		return fmt.Errorf("copy journal: %w", err)
	}
	if err := readers(); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("copy journal: %w", err)
	}
	for _, s := range j.streams {
		if err := s.copy(dir); err != nil {
			return fmt.Errorf("copy journal: %w", err)
		}
	}
	if err := private.CreateFile(filepath.Join(dir, stateName), state); err != nil {
		return fmt.Errorf("copy journal: %w", err)
	}
	return nil
}

// currentState returns the encoded state with the cursors in memory.
func (j *Journal) currentState() ([]byte, error) {
	j.stateMu.Lock()
	defer j.stateMu.Unlock()
	return j.nextState(func(*state) {}).encode()
}

// copy copies the segments up to the last durable record. The caller must hold retaining.
func (s *stream) copy(dir string) error {
	if err := s.syncAll(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.finished {
		s.mu.Unlock()
		return ErrClosed
	}
	end := s.durable
	var paths []string
	for _, g := range s.segments {
		if g.number <= end.segment() {
			paths = append(paths, g.path)
		}
	}
	s.mu.Unlock()
	for i, path := range paths {
		to := filepath.Join(dir, filepath.Base(path))
		if i < len(paths)-1 && s.j.fs == FS(osFS{}) && os.Link(path, to) == nil {
			continue
		}
		size := int64(-1)
		if i == len(paths)-1 {
			size = end.offset()
		}
		if err := s.copySegment(path, to, size); err != nil {
			return err
		}
	}
	return nil
}

// copySegment copies the first bytes of a segment, all of them if size is negative.
func (s *stream) copySegment(from, to string, size int64) (err error) {
	in, err := s.j.fs.OpenFile(from, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	if size < 0 {
		if size, err = in.Size(); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.NewSectionReader(in, 0, size))
	if err == nil && n < size {
		err = fmt.Errorf("copy %s: %w", from, io.ErrUnexpectedEOF)
	}
	return errors.Join(err, out.Sync(), out.Close())
}
