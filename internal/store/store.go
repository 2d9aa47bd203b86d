// Package store opens Pebble databases that report disk failures instead of
// ending the process.
//
// It owns Pebble's options, the format number of a database, the check of its
// write-ahead log, the reserve of free disk space and the health of the database.
// Its users own the keys, and use no types of Pebble.
package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrNewer means that a newer program wrote the database.
var ErrNewer = errors.New("use the newer program that wrote it")

// Config configures Open.
type Config struct {
	Dir  string
	Name string // in errors and log lines, such as "repo"

	// FormatKey is the key of the format number: 4 bytes, big endian. Open refuses a
	// number above Format and raises one below it. Nothing else writes this key.
	FormatKey []byte
	Format    uint32

	Reserve   uint64 // bytes of free disk space below which Space returns an error
	CacheSize int64  // bytes of Pebble's block cache; two memtables are allocated from it
	MemTable  uint64 // bytes of one memtable

	// Apart is a range of keys that share no table with other keys. This is for keys
	// that only increase: their tables move to the lowest level without a rewrite.
	Apart Range

	ReadOnly bool // open an existing database and change nothing in its folder

	FS     vfs.FS // nil: the operating system's
	Logger *slog.Logger
}

// Store is a Pebble database and its health. Batches are committed with Commit or
// CommitInline, never with their own Commit method.
type Store struct {
	db   io.Closer // *pebble.DB, see access.go
	cfg  Config
	log  *slog.Logger
	view *walView

	durable atomic.Uint64 // sequence number up to which the WAL is known to be durable
	oldLog  Batch         // read-only: batches of the log of an older format; nil: none
	damage  error         // read-only: of the log, or of the format number

	dead           chan struct{} // closed when fatal is set
	backgroundErrs chan error    // of failed flushes and compactions; has a buffer of one
	mu             sync.Mutex
	fatal          error // the first error that Pebble cannot recover from
	background     error // error of the last flush or compaction; nil after a success
}

// Open opens the database, or creates it. If the disk is too full, it returns
// ErrNoSpace or the system's error, and the same process can try again. ErrLog means
// that durable data in the log is damaged.
func Open(cfg Config) (*Store, error) {
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	cfg.FS = OwnerOnly(cfg.FS)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, log: cfg.Logger, dead: make(chan struct{}), backgroundErrs: make(chan error, 1)}
	s.view = &walView{FS: disk{cfg.FS, s}}
	if !cfg.ReadOnly {
		if err := s.checkOpenSpace(); err != nil {
			return nil, err
		}
	}
	if err := s.openPebble(); err != nil {
		return nil, err
	}
	err := s.survive(s.open, nil)
	if err == nil {
		return s, nil
	}
	if s.Failure() == nil {
		err = errors.Join(err, s.survive(s.db.Close, nil))
	}
	return nil, err
}

// Exists reports whether dir holds a database. It does not open it.
func Exists(fs vfs.FS, dir string) bool {
	desc, err := pebble.Peek(dir, fs)
	return err == nil && desc.Exists
}

// openPebble opens Pebble's database. A read-only database with a damaged WAL is
// opened without the damaged part.
func (s *Store) openPebble() error {
	end, err := damagedWAL(s.cfg.FS, s.cfg.Dir)
	if err != nil {
		return err
	}
	if end == nil {
		// While Pebble opens a database, it retries a failed flush forever. The first
		// failure ends the attempt; Pebble then keeps the lock of the folder.
		err := s.survive(s.pebbleOpen, s.backgroundErrs)
		if !pebble.IsCorruptionError(err) || s.view.opened == "" {
			return err
		}
		if end, _, _ = readWAL(s.cfg.FS, s.view.opened); end == nil {
			return err
		}
	}
	s.damage = fmt.Errorf("%s in %s after byte %d: %w", end.name, s.cfg.Dir, end.offset, ErrLog)
	if !s.cfg.ReadOnly {
		return s.damage
	}
	s.view.end = end
	return s.survive(s.pebbleOpen, nil)
}

func (s *Store) pebbleOpen() error {
	cache := pebble.NewCache(s.cfg.CacheSize)
	defer cache.Unref()
	db, err := pebble.Open(s.cfg.Dir, pebbleOptions(s, cache))
	s.db = db
	return err
}

// open checks the format number and replays the log of an older format.
func (s *Store) open() error {
	format, err := s.readFormat()
	if s.cfg.ReadOnly {
		if err == nil || pebble.IsCorruptionError(err) { // the log may be readable
			if failed := s.readOldLog(); failed != nil {
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
	b := s.NewBatch()
	if format < s.cfg.Format {
		if err := b.Set(s.cfg.FormatKey, binary.BigEndian.AppendUint32(nil, s.cfg.Format)); err != nil {
			return err
		}
	}
	return s.replayOldLog(b)
}

// readFormat returns the format number, 0 in a new database.
func (s *Store) readFormat() (uint32, error) {
	val, err := Read(s, s.cfg.FormatKey)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(val) != 4 {
		return 0, errors.New("damaged format number: restore a backup")
	}
	got := binary.BigEndian.Uint32(val)
	if got > s.cfg.Format {
		return 0, fmt.Errorf("format %d, this program supports formats up to %d: %w", got, s.cfg.Format, ErrNewer)
	}
	return got, nil
}

func pebbleOptions(s *Store, cache *pebble.Cache) *pebble.Options {
	succeeded := func(err error) {
		if err == nil {
			s.setBackground(nil)
		}
	}
	options := &pebble.Options{
		Cache:              cache,
		FS:                 s.view,
		FormatMajorVersion: pebble.FormatNewest,
		// On few cores, compactions take time from writers. More tables at level 0
		// mean fewer compactions.
		L0CompactionThreshold: 8,
		Logger:                pebbleLog{s},
		EventListener: &pebble.EventListener{
			BackgroundError: s.backgroundFailed,
			DataCorruption:  func(i pebble.DataCorruptionInfo) { s.corrupted(i.Path, i.Details) },
			FlushEnd:        func(i pebble.FlushInfo) { succeeded(i.Err) },
			CompactionEnd:   func(i pebble.CompactionInfo) { succeeded(i.Err) },
			PossibleAPIMisuse: func(i pebble.PossibleAPIMisuseInfo) {
				s.log.Error(s.cfg.Name+": SingleDelete of a key that was set more than once; check the database with verify", "dir", s.cfg.Dir, "found", i.String())
			},
		},
		MaxOpenFiles:                200,
		MemTableSize:                s.cfg.MemTable,
		MemTableStopWritesThreshold: 3,
		ReadOnly:                    s.cfg.ReadOnly,
	}
	options.ApplyCompressionSettings(compression)
	setFilters(options)
	if apart := (pebble.KeyRange{Start: s.cfg.Apart.Start, End: s.cfg.Apart.End}); apart.Valid() {
		options.Experimental.SpanPolicyFunc = pebble.MakeStaticSpanPolicyFunc(bytes.Compare, apart, pebble.SpanPolicy{})
	}
	return options
}

// setFilters lets the tables above the last level have Bloom filters, 10 bits for each key: Get
// then reads no block of a table that does not have the key. Pebble does not use filters of
// the last level, which would have nine tenths of the keys. Tables that were written without
// a filter, or are read by a version without filters, are read as before.
func setFilters(options *pebble.Options) {
	last := len(options.Levels) - 1
	for i := range last {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	options.Levels[last].FilterPolicy = pebble.NoFilterPolicy
}

// compression compresses only the lowest level: the levels above are rewritten soon.
func compression() pebble.DBCompressionSettings {
	settings := pebble.DBCompressionNone
	last := len(settings.Levels) - 1
	settings.Levels[last] = pebble.DBCompressionFastest.Levels[last]
	return settings
}

// Commit writes a batch and closes it. With Sync it returns when the batch is on
// disk, otherwise when the batch is in memory: if the process is killed, the batch may
// be lost together with all later ones. Other goroutines can read the batch shortly
// before it is durable; readers that must see only durable data use a snapshot. After
// an error nothing can be written, because memory and disk may differ.
func (s *Store) Commit(b Batch, d Durability) error {
	return s.survive(func() error { return s.CommitInline(b, d) }, nil)
}

// CommitInline is Commit without a goroutine of its own, for a goroutine that writes
// often. On a failing disk it may end the calling goroutine or block forever; Dead is
// then closed.
func (s *Store) CommitInline(b Batch, d Durability) (err error) {
	if err := s.Failure(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			s.setFatal(err)
			err = s.Failure()
		}
	}()
	if b.Empty() {
		return b.Close()
	}
	pb := b.(batch).Batch
	if err := addDurableMark(pb, s.durable.Load()); err != nil {
		return err
	}
	options := pebble.NoSync
	if d == Sync {
		options = pebble.Sync
	}
	count := uint64(b.Count())
	if err := pb.Commit(options); err != nil {
		return err
	}
	if d == Sync {
		s.setDurable(uint64(pb.SeqNum()) + count - 1)
	}
	return b.Close()
}

// setDurable records that the WAL is durable up to a sequence number.
func (s *Store) setDurable(seq uint64) {
	for {
		old := s.durable.Load()
		if seq <= old || s.durable.CompareAndSwap(old, seq) {
			return
		}
	}
}

// Set commits one value.
func (s *Store) Set(key, val []byte, d Durability) error {
	b := s.NewBatch()
	if err := b.Set(key, val); err != nil {
		return err
	}
	return s.Commit(b, d)
}

// DeleteRange commits the deletion of the keys from start, inclusive, to end,
// exclusive.
func (s *Store) DeleteRange(start, end []byte, d Durability) error {
	b := s.NewBatch()
	if err := b.DeleteRange(start, end); err != nil {
		return err
	}
	return s.Commit(b, d)
}

// Checkpoint copies the database as it is now to a new folder, with all commits that have
// returned. Tables, which are never changed, are linked if the file system can do that.
// It refuses to do so with too little free disk space.
func (s *Store) Checkpoint(dir string) error {
	if err := s.Failure(); err != nil {
		return err
	}
	if err := s.Space(); err != nil {
		return err
	}
	return s.survive(func() error { return Pebble(s).Checkpoint(dir, pebble.WithFlushedWAL()) }, nil)
}

// Damage returns the damage of a read-only database: of the log, or of the format
// number. The database can be read as it was before the damage. If it is not read-only,
// Open returns the damage as an error.
func (s *Store) Damage() error { return s.damage }

// Close closes the database. It does not close a failed one: goroutines that Fatalf has
// ended may hold its locks, and nothing has to be saved. The process then keeps the
// lock of the folder.
func (s *Store) Close() error {
	if err := s.Failure(); err != nil {
		return err
	}
	return s.survive(func() error {
		var err error
		if s.oldLog != nil {
			err = s.oldLog.Close()
		}
		return errors.Join(err, s.db.Close())
	}, nil)
}
