package repo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

// Init creates a repo whose first commit has these records, and opens it.
// The event log begins with #identity, #account, that #commit, and #sync. A
// folder that holds a repo is refused with ErrRepoExists. After a crash
// there is no repo, and Init may be called again.
//
// Keep one of the first records forever (a profile): indigo's verifier, which
// relays run, rejects a commit that replaces the only record.
func Init(cfg Config, first []Write) (*Repo, error) {
	full, err := cfg.WithDefaults()
	if err != nil {
		return nil, fmt.Errorf("create repo: %w", err)
	}
	if layout.Exists(full.FS, full.Dir) {
		return nil, fmt.Errorf("create repo in %s: %w", full.Dir, ErrRepoExists)
	}
	if err := CheckWrites(first); err != nil {
		return nil, fmt.Errorf("create repo: %w", err)
	}
	if err := initDir(full, first); err != nil {
		return nil, fmt.Errorf("create repo in %s: %w", full.Dir, err)
	}
	return Open(cfg)
}

// TemporaryDir returns a new name next to dir for a repo that is not
// complete yet.
func TemporaryDir(dir string) string {
	var suffix [4]byte
	rand.Read(suffix[:])
	return dir + ".new-" + hex.EncodeToString(suffix[:])
}

// initDir creates the repo in a temporary folder and renames that once it
// is complete, so cfg.Dir never holds a part of one.
func initDir(cfg Config, first []Write) error {
	dir, parent := TemporaryDir(cfg.Dir), cfg.FS.PathDir(cfg.Dir)
	if err := cfg.FS.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if err := initStore(cfg, dir, first); err != nil {
		return errors.Join(err, cfg.FS.RemoveAll(dir))
	}
	if err := cfg.FS.Rename(dir, cfg.Dir); err != nil {
		return errors.Join(err, cfg.FS.RemoveAll(dir))
	}
	return layout.SyncDir(cfg.FS, parent)
}

func initStore(cfg Config, dir string, first []Write) (err error) {
	if err := cfg.FS.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := layout.Open(dir, cfg.Layout())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	w, err := newWriter(cfg, s, layout.State{Head: Head{DID: cfg.DID}})
	if err != nil {
		return err
	}
	if err := w.ready(); err != nil {
		return err
	}
	b := s.NewBatch()
	for _, q := range []request{
		{notices: []Notice{Identity, Account}},
		{writes: first, commit: true, notices: []Notice{Sync}},
	} {
		q.ctx = context.Background()
		if _, err := w.serve(b, q); err != nil {
			return err
		}
	}
	return w.finish(b, 0)
}
