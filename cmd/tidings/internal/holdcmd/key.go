package holdcmd

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

func holdKeyCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "key",
		Short: "`hold key` manages the account's signing key",
	}
	parent.AddCommand(&cobra.Command{
		Use:   "rotate <config>",
		Short: "`hold key rotate` replaces the account's signing key",
		Long: "`hold key rotate` needs the server to be stopped. It creates a new key, which did.json shows from the next start on, signs a new\n" +
			"commit with it and appends #identity and #sync events, so that the network fetches the new key. The old key is kept next to it.\n" +
			"After an interruption, run the command again to complete the rotation.",
		Example:      "  tidings hold key rotate config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return holdKeyRotate(cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	})
	return parent
}

func holdKeyRotate(out, log io.Writer, args []string) (err error) {
	o, _, err := holdOptions(args)
	if err != nil {
		return err
	}
	if err := checkNotMoved(o); err != nil {
		return err
	}
	unlock, err := cli.LockData(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	done, err := hold.RotateKey(RepoConfig(o, log))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s now signs with %s, from revision %s on.\nIts key is %s: keep a copy; without it nobody can sign for the account.\nThe old key, %s, is kept in %s.\n",
		done.DID, done.New, done.Head.Rev, o.KeyFile(), done.Old, done.OldKeyFile)
	return nil
}

func holdPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "password <config>",
		Short: "`hold password` sets a new random password for the account and prints it",
		Long: "`hold password` generates a password for the account, stores its hash and prints it once. The previous password and its sessions\n" +
			"become invalid. Logging in also requires `hold: {login: true}`. The server may be running or stopped.",
		Example:      "  tidings hold password config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return holdPassword(cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
}

// holdPassword prints only the password to out, so that it can be piped.
func holdPassword(out, log io.Writer, args []string) error {
	o, path, err := holdOptions(args)
	if err != nil {
		return err
	}
	password, err := auth.SetPassword(o.PasswordFile())
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "The new password, which is not shown again; its hash is in %s:\n", o.PasswordFile())
	fmt.Fprintln(out, password)
	if !o.Hold.Login {
		fmt.Fprintf(log, "Login is disabled: set `hold: {login: true}` in %s.\n", path)
	}
	return nil
}
