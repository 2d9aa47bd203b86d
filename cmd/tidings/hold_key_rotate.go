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
