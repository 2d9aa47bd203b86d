package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

func restoreCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "restore <folder> <config>",
		Short: "`restore` checks a backup and copies it to the empty data folder",
		Long: "`restore` compares all files of a backup with their hashes, opens the stores, verifies the account's repo like `hold verify`, and\n" +
			"then puts everything in place. The registry must be stopped, and its data folder empty, except for keys. The next start\n" +
			"compares the restored stores with the registry's storage: images that were pushed since the backup get their records.",
		Example:      "  tidings restore /backups/tidings config.yml\n  tidings restore /backups/tidings config.yml --to /tmp/check",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return restoreBackup(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0], args[1], to)
		}),
	}
	c.Flags().StringVar(&to, "to", "", "restore to this folder instead of the data folder of the configuration")
	return c
}

func restoreBackup(ctx context.Context, out, log io.Writer, dir, path, to string) error {
	o, path, err := cli.Options([]string{path})
	if err != nil {
		return err
	}
	if to != "" {
		if o.Data, err = filepath.Abs(to); err != nil {
			return err
		}
	}
	bar := terminal.NewProgress(log, terminal.Bytes, 0)
	done, err := datafolder.Restore(ctx, datafolder.RestoreConfig{
		Options: o, Dir: dir, Progress: bar.Set, Verified: bar.Count, Problem: cli.PrintProblems(bar.Writer(out)),
		Logger: slog.New(slog.NewTextHandler(bar.Writer(log), &slog.HandlerOptions{Level: slog.LevelError})),
	})
	bar.End()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s has the backup of %s: %s, %s, all verified.\n", o.Data, done.Created.Format("2006-01-02 15:04:05 MST"),
		cli.Count(done.Files, "file"), cli.Size(done.Bytes))
	if done.Repo != nil {
		fmt.Fprintf(out, "The account is valid, at %s: %s, %s.\n", done.Repo.Head.Rev, cli.Count(done.Repo.Records, "record"), cli.Count(done.Repo.Blobs, "blob"))
	}
	if done.ByRoot {
		fmt.Fprintf(out, "The files belong to root: if the registry runs as another user, run `chown -R USER %s`, also for a key elsewhere.\n", o.Data)
	}
	if to == "" {
		fmt.Fprintf(out, "`tidings serve %s` continues from there.\n", path)
	}
	return nil
}
