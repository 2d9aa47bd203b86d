package holdcmd

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

func holdInitCommand() *cobra.Command {
	var createNew bool
	c := &cobra.Command{
		Use:   "init <config>",
		Short: "`hold init` creates the account's signing key and repo if they are missing",
		Long: "`hold init` creates the account of the `hold` section: its signing key, and its repo with a profile that is labelled as a\n" +
			"bot. On an existing account it only updates the profile from the display name, description and avatar of the configuration.\n" +
			"Keep a copy of the key: without it the account can never write again. The server must be stopped.",
		Example:      "  tidings hold init config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return holdInit(cmd.OutOrStdout(), cmd.ErrOrStderr(), args, createNew)
		},
	}
	c.Flags().BoolVar(&createNew, "new", false, "start a new repo if the hostname has changed; the old one is kept next to it")
	return c
}

func holdInit(out, log io.Writer, args []string, createNew bool) (err error) {
	o, _, err := holdOptions(args)
	if err != nil {
		return err
	}
	if err := checkNotMoved(o); err != nil {
		if repo.Exists(o.HoldDir()) { // so that scripts may run init before every start
			fmt.Fprintf(out, "Nothing to do: %v.\n", err)
			return nil
		}
		return err
	}
	if cli.Exists(o.Data) {
		if err := cli.CheckFolder(o); err != nil {
			return err
		}
	}
	unlock, err := cli.LockNewData(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	did, err := hold.Init(hold.InitConfig{
		Dir: o.HoldDir(), KeyFile: o.KeyFile(), Hostname: o.Hold.Hostname, Reserve: uint64(o.Hold.Reserve),
		DisplayName: o.Hold.DisplayName, Description: o.Hold.Description, Avatar: o.Hold.Avatar,
		New:    createNew,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The account is %s, in %s.\nIts key is %s: keep a copy; without it nobody can sign for the account.\n", did, o.HoldDir(), o.KeyFile())
	return nil
}
