package store

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble reports an error that it cannot recover from, such as a failed fsync, to
// Logger.Fatalf and expects the process to exit, or it panics. The registry must keep
// running. If Fatalf returned, Pebble would report success for the commit, or retry a
// flush forever. Therefore:
//
//   - Fatalf and the fsync of a directory record the error and end their goroutine.
//   - Calls into Pebble that write run on a goroutine of their own (survive).
//   - After the first such error nothing is written any more (ErrStopped). The durable
//     data can be read, and the next process continues from there.

// ErrStopped means that a write to disk failed. Nothing is written until the process
// restarts; the durable data can be read.
var ErrStopped = errors.New("stopped writing")

var errFileDamaged = errors.New("damaged file")

// survive runs a call into Pebble and returns its error. If the call panics, or a
// goroutine of Pebble calls Fatalf, it returns that failure immediately, since the call
// may wait for a goroutine that has ended. It does the same for an error from
// backgroundErrs, unless that is nil.
func (s *Store) survive(call func() error, backgroundErrs <-chan error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.setFatal(fmt.Errorf("%v", p))
			}
		}()
		done <- call()
	}()
	select {
	case err := <-done:
		if failure := s.Failure(); failure != nil {
			return failure
		}
		return err
	case err := <-backgroundErrs:
		s.setFatal(err)
		return s.Failure()
	case <-s.dead:
		return s.Failure()
	}
}

// flush writes the memtables to tables. It returns the first error, while Pebble
// itself retries forever.
func (s *Store) flush() error {
	done, err := Pebble(s).AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case err := <-s.backgroundErrs:
		return err
	case <-s.dead:
		return s.Failure()
	}
}

// Dead is closed when nothing more can be written before a restart.
func (s *Store) Dead() <-chan struct{} { return s.dead }

// Failure returns the error that stopped writing, or nil.
func (s *Store) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		return nil
	}
	advice := "restart when the disk works again"
	if errors.Is(s.fatal, errFileDamaged) {
		advice = "repair it or restore a backup"
	}
	return fmt.Errorf("%s in %s %w, %s: %w", s.cfg.Name, s.cfg.Dir, ErrStopped, advice, s.fatal)
}

// Health returns an error while the store cannot be written.
func (s *Store) Health() error {
	if err := s.Failure(); err != nil {
		return err
	}
	s.mu.Lock()
	background := s.background
	s.mu.Unlock()
	if background != nil {
		return fmt.Errorf("%s in %s cannot write its tables: %w", s.cfg.Name, s.cfg.Dir, background)
	}
	return s.Space()
}

func (s *Store) setFatal(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		s.fatal = err
		close(s.dead)
		s.log.Error(s.cfg.Name+" stopped writing", "dir", s.cfg.Dir, "error", err)
	}
}

func (s *Store) setBackground(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.background == nil {
		s.log.Error(s.cfg.Name+" cannot write its tables", "dir", s.cfg.Dir, "error", err)
	}
	s.background = err
}

// backgroundFailed is called for a failed flush or compaction. Pebble retries a flush
// immediately; the pause limits the load.
func (s *Store) backgroundFailed(err error) {
	s.setBackground(err)
	select {
	case s.backgroundErrs <- err:
	default:
	}
	time.Sleep(50 * time.Millisecond)
}

// corrupted is called for a damaged file. Reading it returns an error; other files can
// be read, and nothing is written any more.
func (s *Store) corrupted(path string, details error) {
	if !s.cfg.ReadOnly {
		s.setFatal(fmt.Errorf("%w %s: %w", errFileDamaged, path, details))
	}
}

// pebbleLog logs the errors of Pebble.
type pebbleLog struct{ s *Store }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.s.log.Error(fmt.Sprintf(format, args...))
}

func (l pebbleLog) Fatalf(format string, args ...any) {
	l.s.setFatal(fatal(format, args))
	runtime.Goexit()
}

// fatal returns the error for a message that Pebble formats with %v. It wraps the
// error among args, so that errors.Is finds a full disk.
func fatal(format string, args []any) error {
	text := fmt.Errorf(format, args...)
	for _, arg := range args {
		if cause, ok := arg.(error); ok && !errors.Is(text, cause) {
			return &caused{text, cause}
		}
	}
	return text
}

type caused struct {
	error
	cause error
}

func (c *caused) Unwrap() error { return c.cause }

// disk is a file system that ends the goroutine if the fsync of a directory fails.
// Pebble would panic, also on goroutines of its own.
type disk struct {
	vfs.FS
	s *Store
}

func (d disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return directory{f, d.s}, nil
}

// Unwrap lets Pebble detect the type of the file system.
func (d disk) Unwrap() vfs.FS { return d.FS }

type directory struct {
	vfs.File
	s *Store
}

func (d directory) Sync() error {
	if err := d.File.Sync(); err != nil {
		d.s.setFatal(fmt.Errorf("sync directory: %w", err))
		runtime.Goexit()
	}
	return nil
}
