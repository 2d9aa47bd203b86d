// Package store opens Pebble databases so that they tell the truth on a disk
// that fails, and never end the process they live in.
//
// It owns the options, the log of what isn't in tables yet, the format number,
// the reserve of free space and what is known of a database's health. What keys
// mean is left to who opens one.
package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrNoSpace: the disk has less free space than the reserve. Nothing was
// written; the same call works again once there is space.
var ErrNoSpace = errors.New("too little free disk space to write")

// ErrStopped: the disk failed a write, and nothing more is written until a
// restart. What is durable can be read.
var ErrStopped = errors.New("stopped writing")

// ErrNewer: a newer program wrote the database.
var ErrNewer = errors.New("use the newer program that wrote it")

// Config says where a database is, and what it is called when it fails.
type Config struct {
	Dir  string
	Name string // "repository", for errors and the log

	// FormatKey holds the format number of what is in the database, 4 bytes big
	// endian; one above Format is refused, and one below it raised. Nobody else
	// writes it.
	FormatKey []byte
	Format    uint32

	Reserve   uint64 // bytes of free disk below which Space is an error
	CacheSize int64  // bytes of Pebble's block cache, of which two memtables are taken
	MemTable  uint64 // bytes of one memtable

	// Apart is a range of keys whose tables hold no others. Keys that only grow
	// belong there: their tables sink to the bottom without being written again.
	Apart pebble.KeyRange

	ReadOnly bool // of a database that is there, and nothing in its folder changes

	FS     vfs.FS // nil: the operating system's
	Logger *slog.Logger
}

// Store is a Pebble database and what is known of its health. Batches are
// committed with Commit, not with their own method.
//
// What Pebble can't go on from, such as a failed fsync, it reports to
// Logger.Fatalf and expects the process to die. The registry around us must
// not, and if Fatalf returned, Pebble would answer the commit with nil, or try
// a flush again without end. So Fatalf notes the error and ends the goroutine
// that it is called on, and what we ask of Pebble for a write runs on a
// goroutine made for it.
type Store struct {
	*pebble.DB
	cfg Config
	log *slog.Logger

	commits sync.Mutex    // of the order in which batches are logged and applied
	wal     *logWriter    // nil if read only
	unread  *pebble.Batch // what the log has and the tables don't, if read only; nil: nothing
	damage  error         // of the log, if read only

	dead       chan struct{} // closed when fatal is set
	trouble    chan error    // has room for one failed flush or compaction, for flush
	mu         sync.Mutex
	fatal      error // the first thing that Pebble can't go on from
	background error // the last failed flush or compaction, until one succeeds
}

// Open opens the database, and makes it when there is none. On a disk that is
// too full to do that it fails with ErrNoSpace or the system's error, and the
// same process can try again.
func Open(cfg Config) (*Store, error) {
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	cfg.FS = OwnerOnly(cfg.FS)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, log: cfg.Logger, dead: make(chan struct{}), trouble: make(chan error, 1)}
	cache := pebble.NewCache(cfg.CacheSize)
	defer cache.Unref()
	options := s.options(cache)
	if !cfg.ReadOnly {
		if err := s.roomToOpen(); err != nil {
			return nil, err
		}
	}
	// A database of an older program has a log that Pebble itself reads, and
	// then it would try a flush that fails again without end.
	err := s.survive(func() (err error) {
		s.DB, err = pebble.Open(cfg.Dir, options)
		return err
	}, s.trouble)
	if err != nil {
		return nil, err
	}
	if err = s.survive(s.open, nil); err == nil {
		return s, nil
	}
	if s.Failure() == nil {
		err = errors.Join(err, s.survive(s.DB.Close, nil))
	}
	return nil, err
}

func (s *Store) open() error {
	format, err := s.readFormat()
	if s.cfg.ReadOnly {
		if err == nil || pebble.IsCorruptionError(err) { // what the log has may be whole
			if failed := s.readUnread(); failed != nil {
				err = failed
			}
		}
		if pebble.IsCorruptionError(err) {
			s.damage, err = err, nil
		}
		return err
	}
	if err != nil {
		return err
	}
	if format < s.cfg.Format {
		val := binary.BigEndian.AppendUint32(nil, s.cfg.Format)
		if err := s.DB.Set(s.cfg.FormatKey, val, pebble.NoSync); err != nil {
			return err
		}
	}
	return s.replay()
}

func (s *Store) options(cache *pebble.Cache) *pebble.Options {
	options := &pebble.Options{
		Cache:              cache,
		FS:                 disk{s.cfg.FS, s},
		FormatMajorVersion: pebble.FormatNewest,
		// On few cores a compaction takes its time from those who write. With more
		// tables at level 0 there are fewer of them.
		L0CompactionThreshold: 8,
		Logger:                pebbleLog{s},
		EventListener: &pebble.EventListener{
			BackgroundError: s.backgroundFailed,
			DataCorruption:  s.corrupted,
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
			PossibleAPIMisuse: func(i pebble.PossibleAPIMisuseInfo) {
				s.log.Error(s.cfg.Name+" deletes what it did not set just once; verify says what that left", "dir", s.cfg.Dir, "found", i.String())
			},
		},
		MaxOpenFiles:                200,
		MemTableSize:                s.cfg.MemTable,
		MemTableStopWritesThreshold: 3,
		ReadOnly:                    s.cfg.ReadOnly,
	}
	options.DisableWAL = true // we have the log
	options.ApplyCompressionSettings(compression)
	if s.cfg.Apart.Valid() {
		options.Experimental.SpanPolicyFunc = pebble.MakeStaticSpanPolicyFunc(bytes.Compare, s.cfg.Apart, pebble.SpanPolicy{})
	}
	return options
}

// compression is for the lowest level alone: what is above it is soon written
// again.
func compression() pebble.DBCompressionSettings {
	settings := pebble.DBCompressionNone
	last := len(settings.Levels) - 1
	settings.Levels[last] = pebble.DBCompressionFastest.Levels[last]
	return settings
}

// survive runs a call into Pebble and returns its error. If the call panics, or
// any goroutine of Pebble meets Fatalf, it returns at once with that failure:
// the call may then wait for a goroutine that is gone. So it does at trouble, if
// that isn't nil.
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

// flush returns when all that is in memory is in tables, or with the first
// error of Pebble, which itself would try again without end.
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

// readFormat is the format number in the tables, 0 in a new database.
func (s *Store) readFormat() (uint32, error) {
	val, err := Read(s.DB, s.cfg.FormatKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(val) != 4 {
		return 0, errors.New("its format number is damaged: restore it from a backup")
	}
	got := binary.BigEndian.Uint32(val)
	if got > s.cfg.Format {
		return 0, fmt.Errorf("it has format %d and this program knows up to %d: %w", got, s.cfg.Format, ErrNewer)
	}
	return got, nil
}

// Commit writes a batch and closes it; with pebble.Sync it returns once the
// batch is fsynced, without once the operating system has it. It can be read a
// little earlier: whoever must not see what isn't durable reads from a snapshot.
// After an error nothing more can be written: what is in memory is no longer
// what is on disk.
func (s *Store) Commit(b *pebble.Batch, options *pebble.WriteOptions) error {
	return s.survive(func() error { return s.CommitHere(b, options) }, nil)
}

// CommitHere is Commit for who writes a lot and spares it a goroutine. Its
// caller may be lost in it, or ended, once the store is Dead.
func (s *Store) CommitHere(b *pebble.Batch, options *pebble.WriteOptions) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	if err := s.Failure(); err != nil {
		return err
	}
	if err := s.commit(b, options.GetSync()); err != nil {
		s.setFatal(err)
		return s.Failure()
	}
	return b.Close()
}

func (s *Store) commit(b *pebble.Batch, sync bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	if err := b.Set(keyLogged, binary.BigEndian.AppendUint64(nil, s.wal.next), nil); err != nil {
		return err
	}
	if err := s.wal.append(b.Repr()); err != nil {
		return err
	}
	if sync {
		if err := s.wal.beginSync(); err != nil { // and the disk works while Pebble does
			return err
		}
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	if sync {
		return s.wal.sync()
	}
	return nil
}

// Dead is closed when nothing more can be written before a restart.
func (s *Store) Dead() <-chan struct{} { return s.dead }

// Set writes one value as Commit does.
func (s *Store) Set(key, val []byte, options *pebble.WriteOptions) error {
	b := s.NewBatch()
	if err := b.Set(key, val, nil); err != nil {
		return err
	}
	return s.Commit(b, options)
}

// DeleteRange deletes the keys from start up to end, without end, as Commit
// does.
func (s *Store) DeleteRange(start, end []byte, options *pebble.WriteOptions) error {
	b := s.NewBatch()
	if err := b.DeleteRange(start, end, nil); err != nil {
		return err
	}
	return s.Commit(b, options)
}

// Failure is what ended writing, nil while nothing has.
func (s *Store) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		return nil
	}
	if errors.Is(s.fatal, errFile) {
		return fmt.Errorf("%s in %s %w, repair it or restore a backup: %w", s.cfg.Name, s.cfg.Dir, ErrStopped, s.fatal)
	}
	return fmt.Errorf("%s in %s %w, restart once the disk is well: %w", s.cfg.Name, s.cfg.Dir, ErrStopped, s.fatal)
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
		s.log.Error(s.cfg.Name+" can't tidy its files", "dir", s.cfg.Dir, "error", err)
	}
	s.background = err
}

// corrupted is called with what a disk has changed. Whoever reads it gets an
// error and the rest can be read, but nothing more is written on top.
func (s *Store) corrupted(i pebble.DataCorruptionInfo) {
	if !s.cfg.ReadOnly {
		s.setFatal(fmt.Errorf("%w, %s: %w", errFile, i.Path, i.Details))
	}
}

var errFile = errors.New("the disk has changed a file of it")

// backgroundFailed is called by Pebble, which tries a failed flush again at
// once: the pause keeps it from filling the processor.
func (s *Store) backgroundFailed(err error) {
	s.setBackground(err)
	select {
	case s.trouble <- err:
	default:
	}
	time.Sleep(50 * time.Millisecond)
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
		return fmt.Errorf("%s in %s can't tidy its files: %w", s.cfg.Name, s.cfg.Dir, background)
	}
	return s.Space()
}

// openingTakes is what opening a database writes besides the batches of its log:
// a manifest, options and a first piece of the log, in bytes.
const openingTakes = 2 << 20

// roomToOpen wraps ErrNoSpace when the disk has less free space than it takes to
// open the database. What Pebble can't write then could end it in a way that
// lasts until the process ends, since it keeps the database's lock.
func (s *Store) roomToOpen() error {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return nil // there is no database yet, or the file system can't tell
	}
	takes := uint64(openingTakes)
	names, err := s.cfg.FS.List(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, logPrefix) {
			continue
		}
		if info, err := s.cfg.FS.Stat(s.cfg.FS.PathJoin(s.cfg.Dir, name)); err == nil {
			takes += uint64(info.Size())
		}
	}
	if usage.AvailBytes >= takes {
		return nil
	}
	return fmt.Errorf("%w: %d KiB free in %s, opening %s can take %d KiB", ErrNoSpace, usage.AvailBytes>>10, s.cfg.Dir, s.cfg.Name, takes>>10)
}

// FreeSpace is the space in bytes that this process may still write to the file
// system of a folder.
func FreeSpace(dir string) (uint64, error) {
	usage, err := vfs.Default.GetDiskUsage(dir)
	return usage.AvailBytes, err
}

// Space wraps ErrNoSpace when the disk has less than the reserve left. Pebble
// stalls or dies on a full disk, so writes end before it is.
func (s *Store) Space() error {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return nil // a file system that can't tell, or a fault that the write will meet
	}
	if usage.AvailBytes >= s.cfg.Reserve {
		return nil
	}
	return fmt.Errorf("%w: %d MiB free in %s, %d MiB are kept in reserve", ErrNoSpace, usage.AvailBytes>>20, s.cfg.Dir, s.cfg.Reserve>>20)
}

// Close leaves a failed database as it is: goroutines that Fatalf ended may hold
// its locks, and nothing is to be saved. Its file lock goes with the process.
func (s *Store) Close() error {
	if err := s.Failure(); err != nil {
		return err
	}
	return s.survive(func() error {
		s.commits.Lock()
		defer s.commits.Unlock()
		var err error
		if s.wal != nil {
			err = s.wal.close()
		}
		if s.unread != nil {
			err = s.unread.Close()
		}
		return errors.Join(err, s.DB.Close())
	}, nil)
}

// Read copies a value out.
func Read(r pebble.Reader, key []byte) ([]byte, error) {
	val, closer, err := r.Get(key)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), val...), nil
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

// fatal is the error of a message that Pebble formats with %v. It wraps the
// error among args, so that a full disk can be told from other faults.
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
