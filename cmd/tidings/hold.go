package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware"
)

func holdCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "hold",
		Short: "`hold` looks after the account that is embedded in the registry",
	}
	parent.AddCommand(
		holdInitCommand(), holdServeCommand(), holdStatusCommand(), holdVerifyCommand(), holdRepairCommand(),
		holdExportCommand(), holdImportCommand(), holdKeyCommand(), holdPasswordCommand(),
	)
	return parent
}

// holdOptions reads the options of a file that has to have a hold.
func holdOptions(args []string) (*config.Options, string, error) {
	o, path, err := options(args)
	if err != nil {
		return nil, path, err
	}
	if o.Hold == nil {
		return nil, path, fmt.Errorf("%s has no hold; add `hold: {hostname: …}` to the options of tidings", path)
	}
	return o, path, nil
}

// stopped is a hold that no server runs, and none can be started until it is
// closed.
type stopped struct {
	*config.Options
	path   string // of the configuration
	repo   repo.Config
	old    []atcrypto.PublicKey // earlier keys
	unlock func() error
}

func (s *stopped) Close() error { return s.unlock() }

// holdConfig says where a hold is. Log is where warnings go.
func holdConfig(o *config.Options, log io.Writer) hold.RepoConfig {
	return hold.RepoConfig{
		Dir: o.HoldDir(), KeyFile: o.KeyFile(), Hostname: o.Hold.Hostname, Reserve: uint64(o.Hold.Reserve),
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// unmoved refuses to change the repository of an account that is elsewhere.
func unmoved(o *config.Options) error {
	if moved := o.Hold.MovedTo; moved != nil {
		return fmt.Errorf("the account has moved to %s, and nothing is changed here; when it is to come back, leave hold.moved_to out first", moved.Service)
	}
	return nil
}

// stoppedHold keeps servers out of the data folder that a configuration names.
func stoppedHold(args []string, log io.Writer) (*stopped, error) {
	o, path, err := holdOptions(args)
	if err != nil {
		return nil, err
	}
	s := &stopped{Options: o, path: path}
	if s.unlock, err = lockData(o); err != nil {
		return nil, err
	}
	if s.repo, s.old, err = hold.Offline(holdConfig(o, log)); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

// lockData takes the data folder, which has to be there.
func lockData(o *config.Options) (unlock func() error, err error) {
	if _, err := os.Stat(o.Data); err != nil {
		return nil, fmt.Errorf("%w; `tidings hold init` makes the account", err)
	}
	unlock, err = middleware.Lock(o.LockFile())
	if errors.Is(err, middleware.ErrInUse) {
		return nil, fmt.Errorf("a server is running on the data folder %s: stop it first", o.Data)
	}
	return unlock, err
}
