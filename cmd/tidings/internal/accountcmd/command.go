// Package accountcmd has the commands of an account on another PDS and of the sender of
// reports to another hold, and what `config check --online` asks the network.
package accountcmd

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// Command returns `account` with its commands.
func Command() *cobra.Command {
	parent := &cobra.Command{
		Use:   "account",
		Short: "`account` manages the account on a PDS that records and posts are written to",
	}
	parent.AddCommand(accountInitCommand(), accountStatusCommand())
	return parent
}

// accountOptions reads the options of a file, which must have an account section.
func accountOptions(args []string) (*config.Options, string, error) {
	o, path, err := cli.Options(args)
	if err != nil {
		return nil, path, err
	}
	if o.Account == nil {
		return nil, path, fmt.Errorf("%s has no account section; add `account: {service: …, identifier: …, password_file: …}` to the options of tidings", path)
	}
	return o, path, nil
}

// openAccount returns a client of the account. Log lines go to log.
func openAccount(cfg pds.Config, log io.Writer) (*pds.Account, error) {
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return pds.Open(cfg)
}

// A session is a client of the account for a command that creates no data folder.
type session struct {
	*pds.Account
	running bool // a server uses the session, so this one is read-only
	kept    bool // in the data folder
	close   func()
}

// openSession uses the session in the data folder. If there is no such folder, the
// session is kept in a temporary one until close.
func openSession(o *config.Options, log io.Writer) (s session, err error) {
	s.close = func() {}
	cfg := o.PDS()
	if s.kept = cli.Exists(o.Data); s.kept {
		unlock, err := datafolder.Lock(o.LockFile())
		if s.running = errors.Is(err, datafolder.ErrInUse); err != nil && !s.running {
			return s, err
		}
		if cfg.ReadOnly = s.running; !s.running {
			s.close = func() { _ = unlock() } // the lock ends with the process as well
		}
	} else {
		dir, err := os.MkdirTemp("", "tidings-*")
		if err != nil {
			return s, err
		}
		s.close = func() { _ = os.RemoveAll(dir) }
		cfg.File = filepath.Join(dir, filepath.Base(cfg.File))
	}
	if s.Account, err = openAccount(cfg, log); err != nil {
		s.close()
	}
	return s, err
}
