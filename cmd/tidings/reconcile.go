package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier"
)

// errDiffers is for the exit code; the differences were printed.
var errDiffers = errors.New("the stores differ")

func reconcileCommand() *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use:   "reconcile <config>",
		Short: "`reconcile` compares what the registry stores with what is recorded, and lets the next start mend the differences",
		Long: "`reconcile` is for while the server is stopped, after a backup of some of its stores was put back or a disk was rolled back.\n" +
			"It compares the registry's storage, the ledger, the account and the counters, also those in Redis, and prints the differences.\n" +
			"The next start then writes the records that are missing and deletes those of images that are gone. The exit code is 0 if there was none, 2 if there were some,\n" +
			"1 if it could not look.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return reconcile(ctx, cmd.OutOrStdout(), args, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the differences and change nothing")
	return cmd
}

func reconcile(ctx context.Context, out io.Writer, args []string, dryRun bool) error {
	o, path, err := holdOptions(args)
	if err != nil {
		return err
	}
	unlock, err := lockData(o)
	if err != nil {
		return err
	}
	if err := unlock(); err != nil {
		return err
	}
	host, _, err := load(args)
	if err != nil {
		return err
	}
	found := int64(0)
	pending, err := middleware.Compare(ctx, host, func(d notifier.Difference) error {
		if found++; found <= shownProblems {
			fmt.Fprintln(out, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if found > shownProblems {
		fmt.Fprintf(out, "… and %d more\n", found-shownProblems)
	}
	if pending > 0 {
		fmt.Fprintf(out, "%s pending; the next start delivers them, which can settle differences.\n", count(int64(pending), "event"))
	}
	if found == 0 {
		fmt.Fprintln(out, "Storage, ledger, account and counters agree.")
		return nil
	}
	if dryRun {
		return fmt.Errorf("%w: %s", errDiffers, count(found, "difference"))
	}
	if err := middleware.Reconcile(ctx, host); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s; the next `tidings serve %s` mends them", errDiffers, count(found, "difference"), path)
}
