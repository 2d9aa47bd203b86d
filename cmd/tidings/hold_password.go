package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/hold"
)

func holdPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "password <config>",
		Short: "`hold password` makes a new password for the account and prints it once",
		Long: "`hold password` makes a new random password for the account, prints it once and stores its hash. An earlier one, and who\n" +
			"logged in with it, is no longer let in. It is of use only with `hold: {login: true}`.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return holdPassword(cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
}

// holdPassword prints the password alone on out, so that it can be piped.
func holdPassword(out, say io.Writer, args []string) error {
	o, path, err := holdOptions(args)
	if err != nil {
		return err
	}
	password, err := hold.SetPassword(o.PasswordFile())
	if err != nil {
		return err
	}
	fmt.Fprintf(say, "The new password, shown this once; its hash is in %s:\n", o.PasswordFile())
	fmt.Fprintln(out, password)
	if !o.Hold.Login {
		fmt.Fprintf(say, "Logging in is off: set `hold: {login: true}` in %s.\n", path)
	}
	return nil
}
