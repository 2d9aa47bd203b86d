package holdcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/repo/repair"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
)

func holdVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify <config>",
		Short: "`hold verify` checks the whole repo of the account and reports damage",
		Long: "`hold verify` needs the server to be stopped. It checks the signature of the head, the hash and position of each tree node and\n" +
			"record, the index, the blobs, and the event log with its signatures. It changes nothing. The exit code is 0 if the repo\n" +
			"is valid, 2 if it is damaged, and 1 if the check failed.",
		Example:      "  tidings hold verify config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return holdVerify(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		}),
	}
}

// ErrDamaged sets the exit code; the damage has been printed.
var ErrDamaged = errors.New("the repo is damaged")

func holdVerify(ctx context.Context, out, log io.Writer, args []string) (err error) {
	s, err := openOffline(args, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	began := time.Now()
	bar := terminal.NewProgress(log, "records", 0)
	report, err := repair.Verify(ctx, s.repo, s.old, cli.PrintProblems(bar.Writer(out)), bar.Count)
	bar.End()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Read %s, %s of its tree, %s and %s in %s.\n", cli.Count(report.Records, "record"), cli.Count(report.Nodes, "node"),
		cli.Count(report.Events, "event"), cli.Count(report.Blobs, "blob"), time.Since(began).Round(time.Millisecond))
	if report.Missing > 0 {
		fmt.Fprintf(out, "%s: referenced by records, but never uploaded.\n", cli.Count(report.Missing, "missing blob"))
	}
	if report.Problems > 0 {
		return fmt.Errorf("%w: %s; `tidings hold repair %s` restores what can be derived", ErrDamaged, cli.Count(report.Problems, "problem"), s.path)
	}
	fmt.Fprintf(out, "%s is valid, at %s.\n", report.Head.DID, report.Head.Rev)
	return nil
}

func holdRepairCommand() *cobra.Command {
	var withoutLost, clockIsRight bool
	c := &cobra.Command{
		Use:   "repair <config>",
		Short: "`hold repair` repairs what `hold verify` reports, as far as it can be derived",
		Long: "`hold repair` needs the server to be stopped. It rebuilds the tree from the records, recovers lost records from the event log,\n" +
			"rebuilds the index and the blob references, and replaces a head that is ahead of the clock with a new commit. The damaged\n" +
			"repo is kept next to the new one and needs the same disk space again: delete it once everything works. The event log\n" +
			"makes subscribers fetch the repo again.",
		Example:      "  tidings hold repair config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return holdRepair(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, withoutLost, clockIsRight)
		}),
	}
	c.Flags().BoolVar(&withoutLost, "without-lost", false, "drop records that cannot be recovered, instead of changing nothing")
	c.Flags().BoolVar(&clockIsRight, "clock-is-right", false, "repair a head that is ahead of the clock even if all other timestamps are, too")
	return c
}

func holdRepair(ctx context.Context, out, log io.Writer, args []string, withoutLost, clockIsRight bool) (err error) {
	s, err := openOffline(args, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := checkNotMoved(s.Options); err != nil {
		return err
	}
	bar := terminal.NewProgress(log, "records", 0)
	done, err := repair.Repair(ctx, repair.Config{
		Config: s.repo, Old: s.old,
		WithoutLost: withoutLost, ClockIsRight: clockIsRight,
		Found: cli.PrintProblems(bar.Writer(out)), Read: bar.Count,
	})
	bar.End()
	var lost *repair.LostError
	switch {
	case errors.As(err, &lost):
		return fmt.Errorf("%w\nNothing was changed. A backup may have them; `tidings hold repair --without-lost %s` drops them", err, s.path)
	case err != nil:
		return err
	case done.Before.Problems == 0:
		fmt.Fprintf(out, "%s is valid, at %s: nothing to repair.\n", done.Head.DID, done.Head.Rev)
		return nil
	}
	fmt.Fprintln(out)
	for _, line := range done.Done {
		fmt.Fprintf(out, "repaired: %s\n", line)
	}
	for _, path := range done.Dropped {
		fmt.Fprintf(out, "dropped: %s\n", path)
	}
	fmt.Fprintf(out, "%s is now at %s.\n", done.Head.DID, done.Head.Rev)
	if done.Backup != "" {
		fmt.Fprintf(out, "The previous repo is kept in %s.\n", done.Backup)
	}
	return nil
}
