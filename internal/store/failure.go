package store

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What Pebble can't recover from, such as a failed fsync, it reports to
// Logger.Fatalf and expects the process to end, or it panics. The registry around
// the store must go on. If Fatalf returned, Pebble would report success for the
// commit, or retry a flush without end. So:
//
//   - Fatalf and the fsync of a directory record the error and end the goroutine
//     they run on.
//   - Calls into Pebble that write run on a goroutine of their own (survive).
//   - After the first such error nothing is written any more (ErrStopped). What
//     is durable can be read, and the next process continues from there.

// ErrStopped means that a write to disk failed. Nothing more is written until the
// process restarts; what is durable can be read.
var ErrStopped = errors.New("stopped writing")

var errFileDamaged = errors.New("damaged file")

// survive runs a call into Pebble and returns its error. If the call panics, or a
// goroutine of Pebble calls Fatalf, it returns that failure at once: the call may be
// waiting for a goroutine that has ended. It does the same for an error from
// trouble, unless trouble is nil.
func (s *Store) survive(call func() error, trouble <-chan error) error {
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
	case err := <-trouble:
		s.setFatal(err)
		return s.Failure()
	case <-s.dead:
		return s.Failure()
	}
}

// flush returns when the memtables are in tables, or with the first error of
// Pebble, which itself retries without end.
func (s *Store) flush() error {
	done, err := s.DB.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case err := <-s.trouble:
		return err
	case <-s.dead:
		return s.Failure()
	}
}

// Dead is closed when nothing more can be written before a restart.
func (s *Store) Dead() <-chan struct{} { return s.dead }

// Failure returns the error that stopped writing, nil while there is none.
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

// Health is nil while the store can be written.
func (s *Store) Health() error {
	if err := s.Failure(); err != nil {
		return err
	}
	s.mu.Lock()
	background := s.background
	s.mu.Unlock()
	if background != nil {
		return fmt.Errorf("%s in %s can't write its tables: %w", s.cfg.Name, s.cfg.Dir, background)
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
		s.log.Error(s.cfg.Name+" can't write its tables", "dir", s.cfg.Dir, "error", err)
	}
	s.background = err
}

// backgroundFailed is called for a failed flush or compaction. Pebble retries a
// flush at once: the pause limits the load.
func (s *Store) backgroundFailed(err error) {
	s.setBackground(err)
	select {
	case s.trouble <- err:
	default:
	}
	time.Sleep(50 * time.Millisecond)
}

// corrupted is called for a damaged file. Its reader gets an error and the rest can
// be read, but nothing more is written.
func (s *Store) corrupted(i pebble.DataCorruptionInfo) {
	if !s.cfg.ReadOnly {
		s.setFatal(fmt.Errorf("%w %s: %w", errFileDamaged, i.Path, i.Details))
	}
}

// pebbleLog passes on what an operator should see.
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

// disk is a file system whose directories end the goroutine if their fsync fails.
// Pebble panics then, also on goroutines where nobody can recover.
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

// Unwrap lets Pebble find the kind of the file system.
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
