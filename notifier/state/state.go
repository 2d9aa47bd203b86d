// Package state opens the notifier's own store: one database in which the
// ledger, the counters and the sinks each keep keys under a prefix of theirs,
// so that one batch can hold a number and the cursor that goes with it.
//
//	a/ announcements   b/ outboxes and positions of sinks   c/ counters
//	d/ dead letters    k/ calls of other registries         m/ ledger
//	p/ pushes, for those who read
package state

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
)

const format = 3 // 1: before the store had a log of its own; 2: rows in JSON

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
	if errors.Is(err, store.ErrLog) {
		err = fmt.Errorf("%w: restore it from a backup", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open state in %s: %w", cfg.Dir, err)
	}
	return s, nil
}
