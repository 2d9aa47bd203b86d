// Package state is the store of the notifier: one database in which the ledger,
// the counter and the sinks each have keys under their own prefix, so that one
// batch can hold a number and the cursor that belongs to it. keys.go lists the
// prefixes.
//
// Its users need no more than the interface Store, which is implemented on Pebble.
package state

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
)

const format = 4 // 3: the store had a log of its own; 2: rows in JSON; 1: before the log

var formatKey = []byte("format")

// Config configures Open.
type Config struct {
	Dir     string
	Reserve uint64 // bytes of free disk space below which the sinks pause
	FS      vfs.FS // nil: the operating system
	Logger  *slog.Logger
}

// Open opens the database, and creates it if there is none. One that a newer
// program has written is refused.
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
