package holdcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/repair"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
)

func holdExportCommand() *cobra.Command {
	var noBlobs bool
	c := &cobra.Command{
		Use:   "export <config> [<out.car>]",
		Short: "`hold export` writes the account's repo and blobs to a CAR file",
		Long: "`hold export` needs the server to be stopped; a running one serves com.atproto.sync.getRepo. It writes the head commit, the tree\n" +
			"and the records, followed by the blobs, as one CAR to a new file or to standard output. `hold import` reads it. The signing key\n" +
			"is not included.",
		Example:      "  tidings hold export config.yml account.car",
		Args:         cobra.RangeArgs(1, 2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return holdExport(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, !noBlobs)
		}),
	}
	c.Flags().BoolVar(&noBlobs, "no-blobs", false, "omit the blobs, as getRepo does")
	return c
}

func holdExport(ctx context.Context, out, log io.Writer, args []string, blobs bool) (err error) {
	s, err := openOffline(args[:1], log)
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
		if terminal.Is(out) {
			return errors.New("refusing to write a CAR to a terminal: name a file, or use a pipe")
		}
		return writeExport(ctx, out, log, r, blobs, "standard output")
	}
	return cli.CreateFile(args[1], func(file io.Writer) error { return writeExport(ctx, file, log, r, blobs, args[1]) })
}

func writeExport(ctx context.Context, out, log io.Writer, r *repo.Repo, blobs bool, to string) error {
	bar := terminal.NewProgress(log, terminal.Bytes, 0)
	defer bar.End()
	out = io.MultiWriter(out, bar.Counter())
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
	bar.End()
	head := r.Head()
	fmt.Fprintf(log, "Exported %s at %s with %s to %s.\n", head.DID, head.Rev, cli.Count(n, "blob"), to)
	return nil
}

func holdImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import <config> <in.car>",
		Short: "`hold import` replaces the account's repo with the contents of a CAR file",
		Long: "`hold import` needs the server to be stopped. It replaces the repo with an export of this account, including blobs, under a\n" +
			"new commit. The event log continues and makes subscribers fetch the repo again. The previous repo is kept in a folder\n" +
			"next to it: delete that once everything works. Without a repo, run `hold init` first, with the old key in place.",
		Example:      "  tidings hold import config.yml account.car",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return holdImport(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		}),
	}
}

func holdImport(ctx context.Context, out, log io.Writer, args []string) (err error) {
	file, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer file.Close()
	s, err := openOffline(args[:1], log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := checkNotMoved(s.Options); err != nil {
		return err
	}
	size := int64(0) // not known, such as that of a pipe
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	bar := terminal.NewProgress(log, terminal.Bytes, size)
	done, err := repair.Restore(ctx, s.repo, s.old, io.TeeReader(file, bar.Counter()))
	bar.End()
	if err != nil {
		return err
	}
	signature := "signed with a key of this account"
	if !done.Signed {
		signature = "signed with a key that this hold has never had"
	}
	fmt.Fprintf(out, "Imported %s and %s into %s from revision %s, %s. The head is now %s.\n", cli.Count(done.Records, "record"), cli.Count(done.Blobs, "blob"), done.Head.DID, done.From, signature, done.Head.Rev)
	if done.Missing > 0 {
		fmt.Fprintf(out, "%s: records refer to blobs that neither the file nor this hold has. Upload them; com.atproto.repo.listMissingBlobs lists them.\n", cli.Count(done.Missing, "missing blob"))
	}
	fmt.Fprintf(out, "The previous repo is kept in %s.\n", done.Backup)
	return nil
}
