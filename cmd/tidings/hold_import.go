package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/repo"
)

func holdImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import <config> <in.car>",
		Short: "`hold import` makes the account's repository what a CAR file has",
		Long: "`hold import` is for while the server is stopped. The repository becomes exactly what an export of this account has, its blobs\n" +
			"included, under a fresh commit; the event log goes on and tells subscribers to look again. What was there before is kept\n" +
			"beside it: delete that when all is well. An account that has no repository yet needs `hold init` first, with its old key in place.",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return holdImport(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
}

func holdImport(ctx context.Context, out, log io.Writer, args []string) (err error) {
	file, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer file.Close()
	s, err := stoppedHold(args[:1], log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := unmoved(s.Options); err != nil {
		return err
	}
	done, err := repo.Restore(ctx, s.repo, s.old, file)
	if err != nil {
		return err
	}
	signed := "signed by this account's key"
	if !done.Signed {
		signed = "signed by a key that this hold has never had"
	}
	fmt.Fprintf(out, "%s has the %s and %s of %s, which was %s. It is at %s now.\n", done.Head.DID, count(done.Records, "record"), count(done.Blobs, "blob"), done.From, signed, done.Head.Rev)
	if done.Missing > 0 {
		fmt.Fprintf(out, "%s: records refer to what neither the file nor this hold has. Upload them: com.atproto.repo.listMissingBlobs lists them.\n", count(done.Missing, "missing blob"))
	}
	fmt.Fprintf(out, "What was there before is kept in %s.\n", done.Aside)
	return nil
}
