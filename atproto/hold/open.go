package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// RepoConfig says where the repo and the key of a hold are, and its hostname. Dir,
// KeyFile and Hostname are required.
type RepoConfig struct {
	Dir      string
	KeyFile  string
	Hostname string
	MovedTo  *identity.MovedTo // the account's current host; nil: this hold
	Reserve  uint64            // bytes of free disk space below which writes are refused; 0: the default of repo
	Now      func() time.Time  // nil: time.Now
	Logger   *slog.Logger      // nil: silent
}

// OpenRepo loads the key and opens the repo that Init created. A *BrokenError is
// caused by the disk, any other error by the configuration.
func OpenRepo(cfg RepoConfig) (*repo.Repo, identity.Identity, error) {
	if _, err := identity.DIDWeb(cfg.Hostname); err != nil {
		return nil, identity.Identity{}, err
	}
	id, err := cfg.identity()
	if err != nil {
		return nil, identity.Identity{}, fmt.Errorf("open hold: %w", err)
	}
	id.MovedTo = cfg.MovedTo
	r, err := openRepo(cfg, id)
	if err != nil {
		return nil, identity.Identity{}, fmt.Errorf("open hold: %w", broken(err, id))
	}
	return r, id, nil
}

// Offline returns the configuration of the repo of a hold that no server has open,
// and the previous public keys of the account.
func Offline(cfg RepoConfig) (repo.Config, []atcrypto.PublicKey, error) {
	id, err := cfg.identity()
	if err != nil {
		return repo.Config{}, nil, err
	}
	old, err := identity.OldKeys(cfg.KeyFile)
	return cfg.repoConfig(id), old, err
}

// identity loads the key.
func (cfg RepoConfig) identity() (identity.Identity, error) {
	key, err := identity.LoadKey(cfg.KeyFile)
	if errors.Is(err, fs.ErrNotExist) && repo.Exists(cfg.Dir) {
		return identity.Identity{}, missingKey(cfg)
	}
	if err != nil {
		return identity.Identity{}, err
	}
	return identity.New(cfg.Hostname, key)
}

// CheckKey returns the error by which a start or Init refuses the key. A hold without a repo
// may have no key yet.
func CheckKey(cfg RepoConfig) error {
	_, err := cfg.identity()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func missingKey(cfg RepoConfig) error {
	return fmt.Errorf("the signing key %s of the repo in %s is missing: restore the key from a backup, no other can sign for it", cfg.KeyFile, cfg.Dir)
}

// openRepo opens the repo. Its errors say what the operator can do.
func openRepo(cfg RepoConfig, id identity.Identity) (*repo.Repo, error) {
	r, err := repo.Open(cfg.repoConfig(id))
	switch {
	case errors.Is(err, repo.ErrNotExist):
		return nil, fmt.Errorf("%w; create it with `tidings hold init`", err)
	case errors.Is(err, repo.ErrForeign):
		return nil, fmt.Errorf("%w; a hostname cannot change: use the old one again, or start a new repo with `tidings hold init --new`, which keeps the old one next to it", err)
	case errors.Is(err, repo.ErrKey) && rotationInterrupted(cfg, id):
		return nil, fmt.Errorf("%w; a change of the key was interrupted: finish it with `tidings hold key rotate`", err)
	}
	return r, err
}

func (cfg RepoConfig) repoConfig(id identity.Identity) repo.Config {
	return repo.Config{
		Dir: cfg.Dir, DID: id.DID, Key: id.Key, Handle: id.Handle,
		Now: cfg.Now, Reserve: cfg.Reserve, Logger: cfg.Logger,
	}
}

func (cfg RepoConfig) now() time.Time {
	if cfg.Now != nil {
		return cfg.Now()
	}
	return time.Now()
}

func (cfg RepoConfig) logger() *slog.Logger {
	if cfg.Logger != nil {
		return cfg.Logger
	}
	return slog.New(slog.DiscardHandler)
}
