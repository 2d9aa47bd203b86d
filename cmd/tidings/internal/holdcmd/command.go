// Package holdcmd has the commands of the account that is embedded in the registry.
package holdcmd

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
)

// Command returns `hold` with its commands.
func Command() *cobra.Command {
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
	o, path, err := cli.Options(args)
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

// RepoConfig returns the configuration of the repo. Warnings go to log.
func RepoConfig(o *config.Options, log io.Writer) hold.RepoConfig {
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
	if s.unlock, err = cli.LockData(o); err != nil {
		return nil, err
	}
	if s.repo, s.old, err = hold.Offline(RepoConfig(o, log)); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}
