package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// store is the Pebble database and what is known of its health.
//
// What Pebble can't go on from, such as a failed fsync, it reports to
// Logger.Fatalf and expects the process to die. The registry around us must
// not, and if Fatalf returned, Pebble would answer the commit with nil, or try
// a flush again without end. So Fatalf notes the error and ends the goroutine
// that it is called on, and what we ask of Pebble for a write runs on a
// goroutine made for it.
type store struct {
	db      *pebble.DB
	fs      vfs.FS
	dir     string
	reserve uint64
	log     *slog.Logger

	dead       chan struct{} // closed when fatal is set
	mu         sync.Mutex
	fatal      error // the first thing that Pebble can't go on from
	background error // the last failed flush or compaction, until one succeeds
}

func openStore(cfg Config, dir string) (*store, error) {
	s := &store{fs: cfg.FS, dir: dir, reserve: cfg.Reserve, log: cfg.Logger, dead: make(chan struct{})}
	cache := pebble.NewCache(cfg.CacheSize)
	defer cache.Unref()
	db, err := s.openPebble(dir, &pebble.Options{
		Cache:                 cache,
		FS:                    disk{cfg.FS, s},
		FormatMajorVersion:    pebble.FormatNewest,
		L0CompactionThreshold: 2,
		LBaseMaxBytes:         16 << 20,
		Logger:                pebbleLog{s},
		EventListener: &pebble.EventListener{
			BackgroundError: s.backgroundFailed,
			FlushEnd: func(i pebble.FlushInfo) {
				if i.Err == nil {
					s.setBackground(nil)
				}
			},
			CompactionEnd: func(i pebble.CompactionInfo) {
				if i.Err == nil {
					s.setBackground(nil)
				}
			},
		},
		MaxOpenFiles:                200,
		MemTableSize:                4 << 20,
		MemTableStopWritesThreshold: 3,
	})
	if err != nil {
		return nil, err
	}
	s.db = db
	if err := s.checkFormat(); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func (s *store) openPebble(dir string, opts *pebble.Options) (*pebble.DB, error) {
	var db *pebble.DB
	err := s.survive(func() (err error) {
		db, err = pebble.Open(dir, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	return db, nil
}

// survive runs a call into Pebble and returns its error. If the call panics, or
// any goroutine of Pebble meets Fatalf, it returns at once with that failure:
// the call may then wait for a goroutine that is gone.
func (s *store) survive(call func() error) error {
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
		if failure := s.failure(); failure != nil {
			return failure
		}
		return err
	case <-s.dead:
		return s.failure()
	}
}

func (s *store) checkFormat() error {
	val, err := read(s.db, keyFormat)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil // new: the first commit writes it
	}
	if err != nil {
		return err
	}
	if len(val) != 4 {
		return errDamaged
	}
	if got := binary.BigEndian.Uint32(val); got > formatNumber {
		return fmt.Errorf("it has format %d and this program knows up to %d: use the newer program that wrote it", got, formatNumber)
	}
	return nil
}

// commit writes a batch, closes it and returns once it is fsynced. After an error nothing
// more can be written: what Pebble has in memory is no longer what is on disk.
func (s *store) commit(b *pebble.Batch) error {
	if err := s.failure(); err != nil {
		return err
	}
	err := s.survive(func() error { return b.Commit(pebble.Sync) })
	if err != nil {
		s.setFatal(err)
		return s.failure()
	}
	return b.Close()
}

func (s *store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		return nil
	}
	return fmt.Errorf("repository in %s stopped writing, restart once the disk is well: %w", s.dir, s.fatal)
}

func (s *store) setFatal(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		s.fatal = err
		close(s.dead)
		s.log.Error("repository stopped writing", "dir", s.dir, "error", err)
	}
}

func (s *store) setBackground(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.background == nil {
		s.log.Error("repository can't tidy its files", "dir", s.dir, "error", err)
	}
	s.background = err
}

// backgroundFailed is called by Pebble, which tries a failed flush again at
// once: the pause keeps it from filling the processor.
func (s *store) backgroundFailed(err error) {
	s.setBackground(err)
	time.Sleep(50 * time.Millisecond)
}

// health is nil while the store can be written.
func (s *store) health() error {
	if err := s.failure(); err != nil {
		return err
	}
	s.mu.Lock()
	background := s.background
	s.mu.Unlock()
	if background != nil {
		return fmt.Errorf("repository in %s can't tidy its files: %w", s.dir, background)
	}
	return s.space()
}

// space wraps ErrNoSpace when the disk has less than the reserve left. Pebble
// stalls or dies on a full disk, so writes end before it is.
func (s *store) space() error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return nil // a file system that can't tell, or a fault that the write will meet
	}
	if usage.AvailBytes >= s.reserve {
		return nil
	}
	return fmt.Errorf("%w: %d MiB free in %s, %d MiB are kept in reserve", ErrNoSpace, usage.AvailBytes>>20, s.dir, s.reserve>>20)
}

// close leaves a failed database as it is: goroutines that Fatalf ended may hold
// its locks, and nothing is to be saved. Its file lock goes with the process.
func (s *store) close() error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.survive(s.db.Close)
}

// read copies a value out.
func read(r pebble.Reader, key []byte) ([]byte, error) {
	val, closer, err := r.Get(key)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), val...), nil
}

// pebbleLog passes on what an operator should see.
type pebbleLog struct{ s *store }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.s.log.Error(fmt.Sprintf(format, args...))
}

func (l pebbleLog) Fatalf(format string, args ...any) {
	l.s.setFatal(fmt.Errorf(format, args...))
	runtime.Goexit()
}
