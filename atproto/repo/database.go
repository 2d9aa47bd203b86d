package repo

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/tidings-dev/tidings/atproto/store"
)

const memTable = 4 << 20

func openStore(cfg Config, dir string) (*store.Store, error) {
	return store.Open(storeConfig(cfg, dir))
}

func openReadOnly(cfg Config) (*store.Store, error) {
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
