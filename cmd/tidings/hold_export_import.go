package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/repo"
)

func holdExportCommand() *cobra.Command {
	var noBlobs bool
	c := &cobra.Command{
		Use:   "export <config> [<out.car>]",
		Short: "`hold export` writes the account's repository and its blobs to a CAR file",
		Long: "`hold export` is for while the server is stopped; a running one answers com.atproto.sync.getRepo. It writes the signed head, the\n" +
			"tree and the records, and then the blobs, as one CAR: to the file, which must not be there yet, or to standard output.\n" +
			"`hold import` takes it back. The signing key is not in it.",
		Args:         cobra.RangeArgs(1, 2),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return holdExport(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, !noBlobs)
		},
	}
	c.Flags().BoolVar(&noBlobs, "no-blobs", false, "leave the blobs out, as getRepo does")
	return c
}

func holdExport(ctx context.Context, out, say io.Writer, args []string, blobs bool) (err error) {
	s, err := stoppedHold(args[:1], say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r, err := repo.Open(s.repo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if len(args) == 1 || args[1] == "-" {
		if terminal(out) {
			return errors.New("a CAR is no text for a terminal: name a file, or send it into a pipe")
		}
		return writeExport(ctx, out, say, r, blobs, "standard output")
	}
	return newFile(args[1], func(file io.Writer) error { return writeExport(ctx, file, say, r, blobs, args[1]) })
}

func writeExport(ctx context.Context, out, say io.Writer, r *repo.Repo, blobs bool, to string) error {
	if err := r.Export(ctx, out); err != nil {
		return err
	}
	n := int64(0)
	if blobs {
		var err error
		if n, err = r.ExportBlobs(ctx, out); err != nil {
			return err
		}
	}
	head := r.Head()
	fmt.Fprintf(say, "%s at %s is in %s, with %s.\n", head.DID, head.Rev, to, count(n, "blob"))
	return nil
}

func terminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// newFile writes a file that isn't there yet: all of it, or none.
func newFile(path string, write func(io.Writer) error) (err error) {
	if exists(path) {
		return fmt.Errorf("%s is there already, and is not overwritten", path)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Link(file.Name(), path) // which, unlike a rename, replaces nothing
}

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
