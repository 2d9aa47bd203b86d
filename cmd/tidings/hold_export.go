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
