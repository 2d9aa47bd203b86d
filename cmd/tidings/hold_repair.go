package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/repo"
)

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
