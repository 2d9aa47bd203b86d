package repo

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidings-dev/tidings/internal/store"
)

const memTable = 6 << 20

func openStore(cfg Config, dir string) (*store.Store, error) {
	s, err := store.Open(storeConfig(cfg, dir))
	if errors.Is(err, store.ErrLog) {
		err = fmt.Errorf("%w: %w", err, errDamaged)
	}
	return s, err
}

// openReadOnly opens a repository that is as it was left.
func openReadOnly(cfg Config) (*store.Store, error) {
	s, err := openDamaged(cfg)
	if err != nil {
		return nil, err
	}
	if damage := s.Damage(); damage != nil {
		s.Close()
		return nil, fmt.Errorf("%w: %w", damage, errDamaged)
	}
	return s, nil
}

// openDamaged also opens one whose log is damaged, for who looks at that.
func openDamaged(cfg Config) (*store.Store, error) {
	if !exists(cfg.FS, cfg.Dir) {
		return nil, ErrNotExist
	}
	s := storeConfig(cfg, cfg.Dir)
	s.ReadOnly = true
	return store.Open(s)
}

func storeConfig(cfg Config, dir string) store.Config {
	return store.Config{
		Dir:       dir,
		Name:      "repository",
		FormatKey: keyFormat,
		Format:    formatNumber,
		Reserve:   cfg.Reserve,
		CacheSize: cfg.CacheSize + 2*memTable,
		MemTable:  memTable,
		Apart:     pebble.KeyRange{Start: []byte(prefixEvent), End: after(prefixEvent)},
		FS:        cfg.FS,
		Logger:    cfg.Logger,
	}
}
