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
