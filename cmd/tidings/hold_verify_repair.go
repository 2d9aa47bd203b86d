package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// shownProblems is how many problems are printed; all are counted.
const shownProblems = 200

func holdVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify <config>",
		Short: "`hold verify` reads all of the account's repository and says what is damaged, and where",
		Long: "`hold verify` is an fsck, for while the server is stopped. It reads the signed head, every node of the tree and every record,\n" +
			"and compares each with its hash and its place; the index; the blobs; and the event log with its signatures. It changes\n" +
			"nothing. The exit code is 0 if all is well, 2 if something is damaged, 1 if it could not look.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return holdVerify(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
}

// interruptible ends with the first signal.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// errDamaged is for the exit code; what is damaged was said.
var errDamaged = errors.New("the repository is damaged")

func holdVerify(ctx context.Context, out, log io.Writer, args []string) (err error) {
	s, err := stoppedHold(args, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	began := time.Now()
	report, err := repo.Verify(ctx, s.repo, s.old, problems(out))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Read %s, %s of its tree, %s and %s in %s.\n", count(report.Records, "record"), count(report.Nodes, "node"),
		count(report.Events, "event"), count(report.Blobs, "blob"), time.Since(began).Round(time.Millisecond))
	if report.Missing > 0 {
		fmt.Fprintf(out, "%s that records refer to: nobody has uploaded them.\n", count(report.Missing, "missing blob"))
	}
	if report.Problems > 0 {
		return fmt.Errorf("%w: %s; `tidings hold repair %s` mends what can be derived", errDamaged, count(report.Problems, "problem"), s.path)
	}
	fmt.Fprintf(out, "%s is sound, at %s.\n", report.Head.DID, report.Head.Rev)
	return nil
}

// problems prints what is wrong, up to a limit.
func problems(out io.Writer) func(repo.Problem) {
	shown := 0
	return func(p repo.Problem) {
		switch shown++; {
		case shown <= shownProblems:
			fmt.Fprintln(out, p)
		case shown == shownProblems+1:
			fmt.Fprintln(out, "… and more")
		}
	}
}

// count is "1 record" or "2 records".
func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func holdRepairCommand() *cobra.Command {
	var withoutLost, clockIsRight bool
	c := &cobra.Command{
		Use:   "repair <config>",
		Short: "`hold repair` mends what `hold verify` finds, as far as it can be derived",
		Long: "`hold repair` is for while the server is stopped. The tree is rebuilt from the records, lost records are looked for in the\n" +
			"event log, the index and the counts of blobs are made anew, and a head that is dated ahead of the clock gets a fresh commit in\n" +
			"its place. The damaged repository is kept beside the new one, which takes as much disk again: delete it when all is well.\n" +
			"The event log tells subscribers to look again.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return holdRepair(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, withoutLost, clockIsRight)
		},
	}
	c.Flags().BoolVar(&withoutLost, "without-lost", false, "go on without records that are found nowhere, instead of leaving all as it is")
	c.Flags().BoolVar(&clockIsRight, "clock-is-right", false, "mend a head that is dated ahead though everything that is kept is")
	return c
}

func holdRepair(ctx context.Context, out, log io.Writer, args []string, withoutLost, clockIsRight bool) (err error) {
	s, err := stoppedHold(args, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := unmoved(s.Options); err != nil {
		return err
	}
	done, err := repo.Repair(ctx, repo.RepairConfig{
		Config: s.repo, Old: s.old,
		WithoutLost: withoutLost, ClockIsRight: clockIsRight,
		Found: problems(out),
	})
	var lost *repo.LostError
	switch {
	case errors.As(err, &lost):
		return fmt.Errorf("%w\nNothing was changed. A backup may have them; `tidings hold repair --without-lost %s` goes on without", err, s.path)
	case err != nil:
		return err
	case done.Before.Problems == 0:
		fmt.Fprintf(out, "%s is sound, at %s: there is nothing to mend.\n", done.Head.DID, done.Head.Rev)
		return nil
	}
	fmt.Fprintln(out)
	for _, line := range done.Done {
		fmt.Fprintf(out, "mended: %s\n", line)
	}
	for _, path := range done.Dropped {
		fmt.Fprintf(out, "given up: %s\n", path)
	}
	fmt.Fprintf(out, "%s is at %s now.\n", done.Head.DID, done.Head.Rev)
	if done.Aside != "" {
		fmt.Fprintf(out, "What was there before is kept in %s.\n", done.Aside)
	}
	return nil
}
