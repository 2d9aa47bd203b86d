package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

// errDiffers sets the exit code; the differences have been printed.
var errDiffers = errors.New("the stores differ")

type reconcileFlags struct{ fix, json bool }

func reconcileCommand() *cobra.Command {
	var flags reconcileFlags
	cmd := &cobra.Command{
		Use:   "reconcile <config>",
		Short: "`reconcile` compares the registry's storage with its records and counters, and schedules the repair of differences",
		Long: "`reconcile` needs the server to be stopped. Use it after restoring a backup of some of the stores, or after rolling back a disk.\n" +
			"It compares the registry's storage, the ledger, the account and the counters, including those in Redis, and prints differences.\n" +
			"An account on another PDS is read at ten calls a second at most, 100 records each.\n\n" +
			"With --fix the repair runs at the next start: it rebuilds the ledger from the account's records, writes missing records and\n" +
			"deletes the records of deleted images. The server serves meanwhile, and `tidings status` shows the repair while it runs. It\n" +
			"runs once, also if the server is killed meanwhile. Counts of this registry that do not agree, and records of another form, stay.\n\n" +
			"The exit code is 0 if there are no differences, 2 if there are some, and 1 if the comparison failed.",
		Example:      "  tidings reconcile config.yml\n  tidings reconcile --fix config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return runReconcile(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, flags)
		}),
	}
	cmd.Flags().BoolVar(&flags.fix, "fix", false, "let the next start of the server repair the differences")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print one JSON object a line")
	return cmd
}

func runReconcile(ctx context.Context, out, progress io.Writer, args []string, flags reconcileFlags) error {
	o, path, err := cli.Options(args)
	if err != nil {
		return err
	}
	host, err := cli.StoppedHost(o, args)
	if err != nil {
		return err
	}
	bar := terminal.NewProgress(progress, "differences found", 0)
	defer bar.End()
	found, lasting := int64(0), int64(0) // lasting ones are not repaired
	pending, err := middleware.Compare(ctx, host, func(d reconcile.Difference) error {
		bar.Add(1)
		if !d.Repairable() {
			lasting++
		}
		if found++; flags.json {
			return cli.PrintLine(out, d)
		}
		if found <= cli.MaxPrinted {
			fmt.Fprintln(out, d)
		}
		return nil
	})
	bar.End()
	if err != nil {
		return err
	}
	if !flags.json {
		printCompared(out, found, pending)
	}
	if found == 0 {
		return nil
	}
	differences := fmt.Errorf("%w: %s", errDiffers, cli.Count(found, "difference"))
	switch {
	case lasting == found:
		return fmt.Errorf("%w, which a repair does not change", differences)
	case !flags.fix:
		return fmt.Errorf("%w; `tidings reconcile --fix %s` lets the next start repair %s", differences, path, repaired(found, lasting))
	}
	if err := middleware.Reconcile(ctx, host); err != nil {
		return fmt.Errorf("schedule the repair: %w", err)
	}
	return fmt.Errorf("%w; the repair of %s runs at the next start (`tidings serve %s`), and `tidings status %s` shows it while it runs",
		differences, repaired(found, lasting), path, path)
}

// repaired says how many differences a repair removes.
func repaired(found, lasting int64) string {
	switch {
	case lasting > 0:
		return fmt.Sprintf("%d of them", found-lasting)
	case found == 1:
		return "it"
	}
	return "them"
}

// printCompared prints what follows the differences.
func printCompared(out io.Writer, found int64, pending uint64) {
	if found > cli.MaxPrinted {
		fmt.Fprintf(out, "… and %d more; --json prints all\n", found-cli.MaxPrinted)
	}
	if pending > 0 {
		fmt.Fprintf(out, "%s pending; the next start processes them, which may resolve differences.\n", cli.Count(int64(pending), "event"))
	}
	if found == 0 {
		fmt.Fprintln(out, "Storage, ledger, account and counters are consistent.")
	}
}
