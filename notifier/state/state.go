// Package state opens the notifier's own store: one Pebble database in which
// the ledger, the counters and the sinks each keep keys under a prefix of
// theirs, so that one batch can hold a number and the cursor that goes with it.
//
//	a/ announcements   b/ batches on their way   c/ counters
//	d/ dead letters    l/ ledger                 p/ pushes, for those who read
package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const format = 1

var formatKey = []byte("format")

// Config says where the store is.
type Config struct {
	Dir    string
	FS     vfs.FS // nil: the operating system's
	Logger *slog.Logger
}

// Open opens the store, and makes it when there is none. A store that a newer
// program wrote is refused.
func Open(cfg Config) (*pebble.DB, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cache := pebble.NewCache(4 << 20)
	defer cache.Unref()
	db, err := pebble.Open(cfg.Dir, &pebble.Options{
		Cache:                       cache,
		FS:                          cfg.FS,
		FormatMajorVersion:          pebble.FormatNewest,
		L0CompactionThreshold:       2,
		LBaseMaxBytes:               16 << 20,
		Logger:                      quiet{log.With("component", "state")},
		MaxOpenFiles:                200,
		MemTableSize:                2 << 20,
		MemTableStopWritesThreshold: 4,
	})
	if err != nil {
		return nil, fmt.Errorf("open state in %s: %w", cfg.Dir, err)
	}
	if err := checkFormat(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("open state in %s: %w", cfg.Dir, err)
	}
	return db, nil
}

func checkFormat(db *pebble.DB) error {
	val, closer, err := db.Get(formatKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return db.Set(formatKey, binary.BigEndian.AppendUint32(nil, format), pebble.Sync)
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if len(val) != 4 {
		return errors.New("its format number is damaged")
	}
	if got := binary.BigEndian.Uint32(val); got > format {
		return fmt.Errorf("it has format %d and this program knows up to %d: use the newer program that wrote it", got, format)
	}
	return nil
}

// quiet passes Pebble's log on. Pebble calls Fatalf for errors it can't go on
// from; the registry that we live in must not die of that, so it becomes a
// panic that the goroutine's owner sees, or an error on the next call.
type quiet struct{ log *slog.Logger }

func (q quiet) Infof(format string, args ...any)  {}
func (q quiet) Errorf(format string, args ...any) { q.log.Error(fmt.Sprintf(format, args...)) }
func (q quiet) Fatalf(format string, args ...any) { q.log.Error(fmt.Sprintf(format, args...)) }
