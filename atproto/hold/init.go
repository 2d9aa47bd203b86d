package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// RepoConfig says where a hold's repository and key are, and who it is. Dir,
// KeyFile and Hostname are required.
type RepoConfig struct {
	Dir      string
	KeyFile  string
	Hostname string
	MovedTo  *identity.MovedTo // where the account is now; nil: here
	Reserve  uint64            // bytes of free disk below which writes are refused; 0: repo's default
	Now      func() time.Time  // nil: time.Now
	Logger   *slog.Logger      // nil: silent
}

// InitConfig is a RepoConfig and what a new account says of itself.
type InitConfig struct {
	Dir, KeyFile, Hostname string
	Reserve                uint64
	Now                    func() time.Time
	Logger                 *slog.Logger

	DisplayName string // at most 64 graphemes; empty: the hostname
	Description string // at most 256 graphemes
	Avatar      string // a PNG or JPEG file of up to 1,000,000 bytes; empty: none is set

	// New sets a repository of another hostname aside, beside Dir, and begins a
	// new one.
	New bool
}

func (cfg InitConfig) repo() RepoConfig {
	return RepoConfig{
		Dir: cfg.Dir, KeyFile: cfg.KeyFile, Hostname: cfg.Hostname, Reserve: cfg.Reserve, Now: cfg.Now, Logger: cfg.Logger,
	}
}

// Init makes what is missing of a hold: its signing key, and its repository
// with a profile that labels the account as a bot. Called again it changes
// nothing but a display name, description or avatar that is given and differs. A
// repository whose key is missing is an error, and so is one of another
// hostname unless cfg.New.
func Init(cfg InitConfig) (did string, err error) {
	if did, err = identity.DIDWeb(cfg.Hostname); err != nil {
		return "", fmt.Errorf("init hold: %w", err)
	}
	key, err := initKey(cfg.repo())
	if err != nil {
		return "", fmt.Errorf("init hold: %w", err)
	}
	id, err := identity.New(cfg.Hostname, key)
	if err != nil {
		return "", fmt.Errorf("init hold: %w", err)
	}
	if err := initRepo(cfg, id); err != nil {
		return "", fmt.Errorf("init hold: %w", err)
	}
	return did, nil
}

// initKey loads the key or, for a hold that has no repository yet, makes it.
func initKey(cfg RepoConfig) (atcrypto.PrivateKeyExportable, error) {
	key, err := identity.LoadKey(cfg.KeyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if repo.Exists(cfg.Dir) {
		return nil, missingKey(cfg)
	}
	return identity.CreateKey(cfg.KeyFile)
}

func missingKey(cfg RepoConfig) error {
	return fmt.Errorf("the repository in %s is there, but its signing key %s is missing: put the key back from a backup, no other can sign for it", cfg.Dir, cfg.KeyFile)
}

func initRepo(cfg InitConfig, id identity.Identity) error {
	if repo.Exists(cfg.Dir) {
		r, err := openRepo(cfg.repo(), id)
		if err == nil {
			return errors.Join(updateProfile(r, cfg), r.Close())
		}
		if !cfg.New || !errors.Is(err, repo.ErrForeign) {
			return err
		}
		if err := setAside(cfg); err != nil {
			return err
		}
	}
	profile, err := newProfile(cfg)
	if err != nil {
		return err
	}
	r, err := repo.Init(repoConfig(cfg.repo(), id), []repo.Write{
		{Action: repo.Create, Collection: lexicon.NSIDProfile, RKey: "self", Record: profile},
	})
	if err != nil {
		return err
	}
	return errors.Join(updateProfile(r, cfg), r.Close()) // the avatar, which needs a repository to be in
}

// setAside keeps the repository of an identity that is given up.
func setAside(cfg InitConfig) error {
	aside := cfg.Dir + ".old-" + cfg.repo().now().UTC().Format("20060102T150405")
	if err := os.Rename(cfg.Dir, aside); err != nil {
		return fmt.Errorf("set the old repository aside: %w", err)
	}
	cfg.repo().logger().Info("set the old repository aside", "path", aside)
	return nil
}

// OpenRepo loads the key and opens the repository that Init made. A
// *BrokenError is a disk's fault; any other error an operator's.
func OpenRepo(cfg RepoConfig) (*repo.Repo, identity.Identity, error) {
	if _, err := identity.DIDWeb(cfg.Hostname); err != nil {
		return nil, identity.Identity{}, err
	}
	key, err := identity.LoadKey(cfg.KeyFile)
	if errors.Is(err, fs.ErrNotExist) && repo.Exists(cfg.Dir) {
		return nil, identity.Identity{}, fmt.Errorf("open hold: %w", missingKey(cfg))
	}
	if err != nil {
		return nil, identity.Identity{}, fmt.Errorf("open hold: %w", err)
	}
	id, err := identity.New(cfg.Hostname, key)
	if err != nil {
		return nil, identity.Identity{}, err
	}
	id.MovedTo = cfg.MovedTo
	r, err := openRepo(cfg, id)
	if err != nil {
		return nil, identity.Identity{}, fmt.Errorf("open hold: %w", broken(err, id))
	}
	return r, id, nil
}

func openRepo(cfg RepoConfig, id identity.Identity) (*repo.Repo, error) {
	r, err := repo.Open(repoConfig(cfg, id))
	switch {
	case errors.Is(err, repo.ErrNotExist):
		return nil, fmt.Errorf("%w; `tidings hold init` makes one", err)
	case errors.Is(err, repo.ErrForeign):
		return nil, fmt.Errorf("%w; a hostname cannot change: give back the old one, or begin anew with `tidings hold init --new`, which keeps the old repository beside the new", err)
	case errors.Is(err, repo.ErrKey) && rotationInterrupted(cfg, id):
		return nil, fmt.Errorf("%w; a change of the key was cut short: finish it with `tidings hold key rotate`", err)
	}
	return r, err
}

func repoConfig(cfg RepoConfig, id identity.Identity) repo.Config {
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
