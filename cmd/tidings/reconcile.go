package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

// errDiffers sets the exit code; the differences have been printed.
var errDiffers = errors.New("the stores differ")

type reconcileFlags struct{ fix, json bool }

func reconcileCommand() *cobra.Command {
	var flags reconcileFlags
	cmd := &cobra.Command{
		Use:   "reconcile <config>",
		Short: "`reconcile` compares the registry's storage with its records and counters, and repairs differences",
		Long: "`reconcile` needs the server to be stopped: while it runs, each push would look like a difference. Use it after restoring a backup\n" +
			"of some of the stores, or after rolling back a disk. It compares the registry's storage, the ledger, the account and the counters,\n" +
			"including those in Redis, and prints differences. An account on another PDS is read at ten calls a second at most, 100 records each.\n\n" +
			"With --fix the server repairs: at once if it is running, without printing differences, else at its next start. It rebuilds the\n" +
			"ledger from the account's records, writes missing records and deletes the records of deleted images. It serves meanwhile, and\n" +
			"`tidings status` shows the repair while it runs. A repair runs once, also if the command is interrupted or the server is killed\n" +
			"meanwhile. Counts of this registry that do not agree, and records of another form, stay.\n\n" +
			"The exit code is 0 if there are no differences or a running server has repaired them, 2 if there are some, and 1 after an error.",
		Example:      "  tidings reconcile config.yml\n  tidings reconcile --fix config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return runReconcile(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, flags)
		}),
	}
	cmd.Flags().BoolVar(&flags.fix, "fix", false, "let the server repair the differences, or its next start if it is stopped")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print one JSON object a line")
	return cmd
}

func runReconcile(ctx context.Context, out, progress io.Writer, args []string, flags reconcileFlags) error {
	o, path, err := cli.Options(args)
	if err != nil {
		return err
	}
	running, err := cli.IsRunning(o)
	switch {
	case err != nil:
		return err
	case running && flags.fix:
		return runRepair(ctx, out, progress, args, flags.json)
	case running:
		return fmt.Errorf("a server is using the data folder %[1]s: stop it to compare its stores. While it runs, `tidings reconcile --fix %[2]s` "+
			"repairs them, `tidings backfill --dry-run %[2]s` counts images without records, and `tidings gc %[2]s` lists records of images that are gone", o.Data, path)
	}
	host, err := cli.StoppedHost(o, args)
	if err != nil {
		return err
	}
	bar := terminal.NewProgress(progress, "manifests", 0)
	defer bar.End()
	lines := bar.Writer(out)
	found, lasting := int64(0), int64(0) // lasting ones are not repaired
	pending, err := middleware.Compare(ctx, host, bar.Writer(progress), bar.Count, func(d reconcile.Difference) error {
		if !d.Repairable() {
			lasting++
		}
		if found++; flags.json {
			return cli.PrintLine(lines, d)
		}
		if found <= cli.MaxPrinted {
			fmt.Fprintln(lines, d)
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
	if err := middleware.Reconcile(ctx, host, progress); err != nil {
		return fmt.Errorf("schedule the repair: %w", err)
	}
	return fmt.Errorf("%w; the repair of %s runs at the next start (`tidings serve %s`), and `tidings status %s` shows it while it runs",
		differences, repaired(found, lasting), path, path)
}

// runRepair lets a running server repair its stores, or follows the repair that runs.
func runRepair(ctx context.Context, out, progress io.Writer, args []string, asJSON bool) error {
	c, err := newAdminClient(args)
	if err != nil {
		return err
	}
	bar := terminal.NewProgress(progress, "repairs", 0)
	defer bar.End()
	var repair admin.Repair
	err = c.callWhenFree(ctx, bar, "POST", "/v1/repair", nil, &repair)
	if failed := (*admin.StatusError)(nil); errors.As(err, &failed) && failed.Name == "Running" {
		err = c.call(ctx, "GET", "/v1/repair", nil, &repair)
	}
	for err == nil && repair.Phase != "" {
		bar.Note(repair.Phase)
		select {
		case <-ctx.Done():
			return errors.New("interrupted; the server continues the repair, also after a restart, and `tidings status` shows it")
		case <-time.After(backfillPoll):
		}
		err = c.call(ctx, "GET", "/v1/repair", nil, &repair)
		if ctx.Err() != nil {
			err = nil
		}
	}
	bar.End()
	switch {
	case err != nil:
		return err
	case asJSON:
		return cli.PrintJSON(out, repair)
	}
	_, err = fmt.Fprintln(out, "The stores are repaired; `tidings status` shows pending events, which are the last writes of the repair.")
	return err
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
