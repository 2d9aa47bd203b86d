package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware"
)

func holdCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "hold",
		Short: "`hold` manages the account that is embedded in the registry",
	}
	parent.AddCommand(
		holdInitCommand(), holdServeCommand(), holdStatusCommand(), holdVerifyCommand(), holdRepairCommand(),
		holdExportCommand(), holdImportCommand(), holdKeyCommand(), holdPasswordCommand(),
	)
	return parent
}

// holdOptions reads the options of a file, which must have a hold section.
func holdOptions(args []string) (*config.Options, string, error) {
	o, path, err := options(args)
	if err != nil {
		return nil, path, err
	}
	if o.Hold == nil {
		return nil, path, fmt.Errorf("%s has no hold section; add `hold: {hostname: …}` to the options of tidings", path)
	}
	return o, path, nil
}

// offlineHold is a hold that no server has open. None can open it until Close.
type offlineHold struct {
	*config.Options
	path   string // of the configuration
	repo   repo.Config
	old    []atcrypto.PublicKey // previous keys
	unlock func() error
}

func (s *offlineHold) Close() error { return s.unlock() }

// holdConfig returns the configuration of the repo. Warnings go to log.
func holdConfig(o *config.Options, log io.Writer) hold.RepoConfig {
	return hold.RepoConfig{
		Dir: o.HoldDir(), KeyFile: o.KeyFile(), Hostname: o.Hold.Hostname, Reserve: uint64(o.Hold.Reserve),
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// checkNotMoved refuses to change the repo of an account that has moved.
func checkNotMoved(o *config.Options) error {
	if moved := o.Hold.MovedTo; moved != nil {
		return fmt.Errorf("the account has moved to %s, so nothing is changed here; to move it back, remove hold.moved_to first", moved.Service)
	}
	return nil
}

// openOffline locks the data folder that a configuration names.
func openOffline(args []string, log io.Writer) (*offlineHold, error) {
	o, path, err := holdOptions(args)
	if err != nil {
		return nil, err
	}
	s := &offlineHold{Options: o, path: path}
	if s.unlock, err = lockData(o); err != nil {
		return nil, err
	}
	if s.repo, s.old, err = hold.Offline(holdConfig(o, log)); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

// stoppedHost loads the configuration of a registry, and returns an error if a server is using
// its data folder. Whoever opens the folder afterwards locks it.
func stoppedHost(o *config.Options, args []string) (*configuration.Configuration, error) {
	unlock, err := lockData(o)
	if err != nil {
		return nil, err
	}
	if err := unlock(); err != nil {
		return nil, err
	}
	host, _, err := load(args)
	return host, err
}

// lockData locks the data folder, which must exist.
func lockData(o *config.Options) (unlock func() error, err error) {
	if _, err := os.Stat(o.Data); err != nil {
		return nil, fmt.Errorf("%w; create the account with `tidings hold init`", err)
	}
	unlock, err = middleware.Lock(o.LockFile())
	if errors.Is(err, middleware.ErrInUse) {
		return nil, fmt.Errorf("a server is using the data folder %s: stop it first", o.Data)
	}
	return unlock, err
}
