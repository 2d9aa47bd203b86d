// Package state opens the notifier's own store: one database in which the
// ledger, the counters and the sinks each keep keys under a prefix of theirs,
// so that one batch can hold a number and the cursor that goes with it.
//
//	a/ announcements   b/ batches on their way   c/ counters
//	d/ dead letters    k/ calls of others        l/ ledger
//	p/ pushes, for those who read
package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/store"
)

const format = 1

var formatKey = []byte("format")

// Config says where the store is.
type Config struct {
	Dir     string
	Reserve uint64 // bytes of free disk below which the sinks wait
	FS      vfs.FS // nil: the operating system's
	Logger  *slog.Logger
}

// Open opens the store, and makes it when there is none. A store that a newer
// program wrote is refused.
func Open(cfg Config) (*store.Store, error) {
	s, err := store.Open(store.Config{
		Dir:       cfg.Dir,
		Name:      "state",
		FormatKey: formatKey,
		Format:    format,
		Reserve:   cfg.Reserve,
		CacheSize: 4 << 20,
		MemTable:  2 << 20,
		FS:        cfg.FS,
		Logger:    cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("open state in %s: %w", cfg.Dir, err)
	}
	if err := begin(s); err != nil {
		s.Close()
		return nil, fmt.Errorf("open state in %s: %w", cfg.Dir, err)
	}
	return s, nil
}

// begin gives a new store its format number.
func begin(s *store.Store) error {
	_, err := store.Read(s, formatKey)
	if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	b := s.NewBatch()
	if err := b.Set(formatKey, binary.BigEndian.AppendUint32(nil, format), nil); err != nil {
		return err
	}
	return s.Commit(b, pebble.Sync)
}
