package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// InitConfig is a RepoConfig and the profile of a new account.
type InitConfig struct {
	Dir, KeyFile, Hostname string
	Reserve                uint64
	Now                    func() time.Time
	Logger                 *slog.Logger

	DisplayName string // at most 64 graphemes; empty: the hostname
	Description string // at most 256 graphemes
	Avatar      string // a PNG or JPEG file of up to 1,000,000 bytes; empty: none

	// New moves the repo of another hostname away, to a folder next to Dir, and
	// creates a new one.
	New bool
}

func (cfg InitConfig) repo() RepoConfig {
	return RepoConfig{
		Dir: cfg.Dir, KeyFile: cfg.KeyFile, Hostname: cfg.Hostname, Reserve: cfg.Reserve, Now: cfg.Now, Logger: cfg.Logger,
	}
}

// Init creates the signing key of a hold, and its repo with a profile that labels
// the account as a bot, if they are missing. For a hold that is complete it
// updates the profile where a display name, description or avatar is given and
// different. It fails if there is a repo without its key, or with another
// hostname unless cfg.New is set.
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

// initKey loads the key, or creates it for a hold that has no repo yet.
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

func initRepo(cfg InitConfig, id identity.Identity) error {
	if repo.Exists(cfg.Dir) {
		r, err := openRepo(cfg.repo(), id)
		if err == nil {
			return errors.Join(updateProfile(r, cfg), r.Close())
		}
		if !cfg.New || !errors.Is(err, repo.ErrForeign) {
			return err
		}
		if err := moveAway(cfg); err != nil {
			return err
		}
	}
	profile, err := newProfile(cfg)
	if err != nil {
		return err
	}
	r, err := repo.Init(cfg.repo().repoConfig(id), []repo.Write{
		{Action: repo.Create, Collection: lexicon.NSIDProfile, RKey: "self", Record: profile},
	})
	if err != nil {
		return err
	}
	return errors.Join(updateProfile(r, cfg), r.Close()) // for the avatar, a blob, which needs a repo
}

// moveAway keeps the repo of a previous hostname.
func moveAway(cfg InitConfig) error {
	old := cfg.Dir + ".old-" + cfg.repo().now().UTC().Format("20060102T150405")
	if err := os.Rename(cfg.Dir, old); err != nil {
		return fmt.Errorf("move the old repo away: %w", err)
	}
	cfg.repo().logger().Info("the old repo was moved away", "path", old)
	return nil
}
