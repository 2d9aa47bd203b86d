package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

// errDiffers sets the exit code; the differences have been printed.
var errDiffers = errors.New("the stores differ")

func reconcileCommand() *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use:   "reconcile <config>",
		Short: "`reconcile` compares the registry's storage with its records and counters, and schedules the repair of differences",
		Long: "`reconcile` needs the server to be stopped. Use it after restoring a backup of some of the stores, or after rolling back a disk.\n" +
			"It compares the registry's storage, the ledger, the account and the counters, including those in Redis, and prints differences.\n" +
			"The next start then writes missing records and deletes the records of deleted images. The exit code is 0 if there are no\n" +
			"differences, 2 if there are some, and 1 if the comparison failed.",
		Example:      "  tidings reconcile config.yml --dry-run",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return runReconcile(ctx, cmd.OutOrStdout(), args, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the differences and change nothing")
	return cmd
}

func runReconcile(ctx context.Context, out io.Writer, args []string, dryRun bool) error {
	o, path, err := holdOptions(args)
	if err != nil {
		return err
	}
	host, err := stoppedHost(o, args)
	if err != nil {
		return err
	}
	found := int64(0)
	pending, err := middleware.Compare(ctx, host, func(d reconcile.Difference) error {
		if found++; found <= maxPrinted {
			fmt.Fprintln(out, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if found > maxPrinted {
		fmt.Fprintf(out, "… and %d more\n", found-maxPrinted)
	}
	if pending > 0 {
		fmt.Fprintf(out, "%s pending; the next start processes them, which may resolve differences.\n", count(int64(pending), "event"))
	}
	if found == 0 {
		fmt.Fprintln(out, "Storage, ledger, account and counters are consistent.")
		return nil
	}
	if dryRun {
		return fmt.Errorf("%w: %s", errDiffers, count(found, "difference"))
	}
	if err := middleware.Reconcile(ctx, host); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s; the next `tidings serve %s` repairs them", errDiffers, count(found, "difference"), path)
}
