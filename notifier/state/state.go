// Package state is the store of the notifier: one database in which the ledger, the
// counter and the sinks each have keys with their own prefix, so that a batch can
// contain a count together with its cursor. keys.go lists the prefixes.
//
// Its users depend only on the interface Store, which is implemented with Pebble.
package state

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
)

const format = 4 // 3: a log in files log-N instead of Pebble's; 2: rows in JSON; 1: without a log

const (
	memTable  = 2 << 20
	cacheSize = 8 << 20 // the indexes and filters of a few million rows
)

var formatKey = []byte("format")

// Config configures Open.
type Config struct {
	Dir      string
	Reserve  uint64 // bytes of free disk space below which the sinks pause
	ReadOnly bool   // open an existing database and change nothing
	FS       vfs.FS // nil: the operating system
	Logger   *slog.Logger
}

// Open opens the database, or creates it. It returns an error for a database of a newer
// version.
func Open(cfg Config) (*store.Store, error) {
	s, err := store.Open(store.Config{
		Dir:       cfg.Dir,
		Name:      "state",
		FormatKey: formatKey,
		Format:    format,
		Reserve:   cfg.Reserve,
		CacheSize: cacheSize + 2*memTable,
		MemTable:  memTable,
		ReadOnly:  cfg.ReadOnly,
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
