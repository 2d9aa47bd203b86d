package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/hold"
)

func holdKeyCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "key",
		Short: "`hold key` looks after the account's signing key",
	}
	parent.AddCommand(&cobra.Command{
		Use:   "rotate <config>",
		Short: "`hold key rotate` gives the account a new signing key",
		Long: "`hold key rotate` is for while the server is stopped. It makes a new key, which did.json shows from the next start on, signs a\n" +
			"fresh commit with it and logs #identity and #sync, so that the network asks for the new key. The old one is kept beside it.\n" +
			"Cut short, it is finished by calling it again.",
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
	if err := unmoved(o); err != nil {
		return err
	}
	unlock, err := lockData(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	done, err := hold.RotateKey(holdConfig(o, log))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s signs with %s now, from %s on.\nIts key is %s: keep a copy, nothing else can sign for this account.\nThe old one, %s, is kept in %s.\n",
		done.DID, done.New, done.Head.Rev, o.KeyFile(), done.Old, done.Aside)
	return nil
}

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
