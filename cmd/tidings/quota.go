package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// quotaFlags are the flags of `tidings quota`.
type quotaFlags struct {
	owner                   string
	json, recompute, dryRun bool
}

func quotaCommand() *cobra.Command {
	var flags quotaFlags
	cmd := &cobra.Command{
		Use:   "quota <config>",
		Short: "`quota` shows how many bytes of layers each owner has, and the limits",
		Long: "`quota` needs the server to be stopped. While it runs, io.atcr.hold.getQuota has the same numbers.\n" +
			"With --recompute it counts the layers of all manifests again, from the ledger and the account's records, prints\n" +
			"differences and corrects them. The exit code is then 2 if there were differences.",
		Example:      "  tidings quota config.yml\n  tidings quota config.yml --recompute",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return runQuota(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, flags)
		}),
	}
	cmd.Flags().StringVar(&flags.owner, "owner", "", "show only the owner with this DID, also one without layers")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&flags.recompute, "recompute", false, "count again, and correct differences")
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "with --recompute: print the differences and correct nothing")
	return cmd
}

func runQuota(ctx context.Context, out, log io.Writer, args []string, flags quotaFlags) error {
	if flags.dryRun && !flags.recompute {
		return errors.New("--dry-run is only for --recompute")
	}
	if err := checkOwner(flags.owner); err != nil {
		return err
	}
	o, _, err := cli.Options(args)
	if err != nil {
		return err
	}
	host, err := cli.StoppedHost(o, args)
	if err != nil {
		return err
	}
	found := int64(0)
	if flags.recompute {
		if found, err = recountUsage(ctx, out, log, host, flags); err != nil {
			return err
		}
	}
	if err := printUsage(out, flags, func(visit func(middleware.OwnerUsage) error) error { return middleware.Usage(host, flags.owner, visit) }); err != nil {
		return err
	}
	switch {
	case found == 0:
		return nil
	case flags.dryRun:
		return fmt.Errorf("%w: %s", errDiffers, cli.Count(found, "difference"))
	}
	return fmt.Errorf("%w: %s corrected", errDiffers, cli.Count(found, "difference"))
}

// checkOwner validates --owner. An owner that is unknown is no error: its usage is zero.
func checkOwner(did string) error {
	if did == "" {
		return nil
	}
	if _, err := syntax.ParseDID(did); err != nil {
		return fmt.Errorf("--owner: %q is no DID, such as did:plc:ewvi7nxzyoun6zhxrhs64oiz", did)
	}
	return nil
}

// recountUsage counts again, and prints and returns the differences.
func recountUsage(ctx context.Context, out, log io.Writer, host *configuration.Configuration, flags quotaFlags) (found int64, err error) {
	bar := terminal.NewProgress(log, "manifests", 0)
	defer bar.End()
	lines := bar.Writer(out)
	count := func(manifests int64) { bar.Set(manifests, 0) }
	err = middleware.RecountUsage(ctx, host, flags.dryRun, bar.Writer(log), count, func(d usage.Difference) error {
		if found++; found > cli.MaxPrinted {
			return nil
		}
		if flags.json {
			return cli.PrintLine(lines, d)
		}
		fmt.Fprintln(lines, d)
		return nil
	})
	return found, err
}

// printUsage prints a line for each owner as it is read.
func printUsage(out io.Writer, flags quotaFlags, each func(func(middleware.OwnerUsage) error) error) error {
	w := cli.NewTable(out)
	if !flags.json {
		fmt.Fprintln(w, "OWNER\tLAYERS\tSIZE\tLIMIT\tTIER")
	}
	err := each(func(u middleware.OwnerUsage) error {
		if flags.json {
			return cli.PrintLine(out, u)
		}
		limit, tier := "none", "-"
		if u.Limit != nil {
			limit, tier = config.Size(*u.Limit).String(), u.Tier
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", u.Owner, u.Blobs, config.Size(u.Bytes), limit, tier)
		return nil
	})
	if err != nil {
		return err
	}
	return w.Flush()
}
