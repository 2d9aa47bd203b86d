package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
)

func holdInitCommand() *cobra.Command {
	var anew bool
	c := &cobra.Command{
		Use:   "init <config>",
		Short: "`hold init` makes the account's signing key and its repository, where they are missing",
		Long: "`hold init` makes what is missing of the account that `hold:` describes: its signing key, and its repository with a profile\n" +
			"that says it is a bot. Called again it changes nothing, but brings a new display name or description into the profile.\n" +
			"Keep a copy of the key: without it the account cannot write any more, and nobody can make another.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return holdInit(cmd.OutOrStdout(), cmd.ErrOrStderr(), args, anew)
		},
	}
	c.Flags().BoolVar(&anew, "new", false, "begin a new repository if the hostname is another; the old one is kept beside it")
	return c
}

func holdInit(out, log io.Writer, args []string, anew bool) error {
	o, _, err := holdOptions(args)
	if err != nil {
		return err
	}
	if err := unmoved(o); err != nil {
		if repo.Exists(o.HoldDir()) { // so that init may stand before every start
			fmt.Fprintf(out, "Nothing to do: %v.\n", err)
			return nil
		}
		return err
	}
	did, err := hold.Init(hold.InitConfig{
		Dir: o.HoldDir(), KeyFile: o.KeyFile(), Hostname: o.Hold.Hostname, Reserve: uint64(o.Hold.Reserve),
		DisplayName: o.Hold.DisplayName, Description: o.Hold.Description, Avatar: o.Hold.Avatar,
		New:    anew,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The account is %s, in %s.\nIts key is %s: keep a copy, nothing else can sign for this account.\n", did, o.HoldDir(), o.KeyFile())
	return nil
}
