package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/backup"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/middleware/admin"
)

func backupCommand() *cobra.Command {
	var q admin.BackupRequest
	var asJSON bool
	c := &cobra.Command{
		Use:   "backup <config> <folder>",
		Short: "`backup` writes a consistent copy of the data folder, also of a running registry",
		Long: "`backup` copies the journal, the counts and ledger, the account's repo with its blobs, and the keys to a folder. If the registry or\n" +
			"`hold serve` is running, that process writes the backup, and pushes and pulls go on. Passwords and sessions are not copied.\n" +
			"On the file system of the data folder, files that are never changed are linked and take no space twice. A folder that has\n" +
			"an earlier backup is replaced in one step, and unchanged files are not copied again. The registry's storage and Redis are\n" +
			"not part of it: see docs/backup.md.",
		Example:      "  tidings backup config.yml /backups/tidings\n  rsync -a --delete /backups/tidings backup.example.com:",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			q.Dir = args[1]
			return writeBackup(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args[:1], q, asJSON)
		}),
	}
	c.Flags().BoolVar(&q.NoKey, "no-key", false, "leave out the signing keys")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func writeBackup(ctx context.Context, out, log io.Writer, args []string, q admin.BackupRequest, asJSON bool) (err error) {
	c, err := newAdminClient(args)
	if err != nil {
		return err
	}
	if q.Dir, err = filepath.Abs(q.Dir); err != nil {
		return err
	}
	bar := terminal.NewProgress(log, terminal.Bytes, 0)
	result, err := c.Backup(ctx, q, bar.Set)
	if errors.Is(err, admin.ErrNotRunning) {
		result, err = backupStopped(ctx, c, args, q, bar.Set)
	}
	if err == nil {
		bar.Set(result.Bytes, result.Bytes) // a process reports its progress from time to time
	}
	bar.End()
	if err != nil {
		return err
	}
	if asJSON {
		return cli.PrintJSON(out, result)
	}
	fmt.Fprintf(out, "%s has %s, %s: %d unchanged, %d linked (%s), %d copied (%s).\n", q.Dir,
		cli.Count(result.Files, "file"), cli.Size(result.Bytes), result.Kept,
		result.Linked, cli.Size(result.LinkedBytes), result.Copied, cli.Size(result.CopiedBytes))
	if q.NoKey {
		fmt.Fprintln(out, "It has no keys: without its key an account cannot be restored.")
	}
	return nil
}

// backupStopped writes a backup of a data folder that no process uses.
func backupStopped(ctx context.Context, c *adminClient, args []string, q admin.BackupRequest, progress func(done, total int64)) (backup.Result, error) {
	if err := cli.CheckFolder(c.options); err != nil {
		return backup.Result{}, err
	}
	running, err := cli.IsRunning(c.options)
	if err != nil {
		return backup.Result{}, err
	}
	if running {
		return backup.Result{}, cli.NoSocket(c.options)
	}
	host, _, err := cli.Load(args)
	if err != nil {
		return backup.Result{}, err
	}
	return middleware.Backup(ctx, host, q, progress)
}
