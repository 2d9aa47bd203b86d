package repo

import "github.com/tidings-dev/tidings/atproto/store"

func openStore(cfg Config, dir string) (*store.Store, error) {
	return store.Open(store.Config{
		Dir:       dir,
		Name:      "repository",
		FormatKey: keyFormat,
		Format:    formatNumber,
		Reserve:   cfg.Reserve,
		CacheSize: cfg.CacheSize,
		MemTable:  4 << 20,
		FS:        cfg.FS,
		Logger:    cfg.Logger,
	})
}
