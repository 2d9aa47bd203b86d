package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/admin"
)

type gcFlags struct{ delete, json bool }

func gcCommand() *cobra.Command {
	var flags gcFlags
	c := &cobra.Command{
		Use:   "gc <config>",
		Short: "`gc` lists the records of manifests that are not in the registry's storage any more, and removes them",
		Long: "`gc` needs the registry to be running. Use it after manifests were deleted without the registry, such as by garbage-collect of\n" +
			"another binary. It lists the manifests; with --delete it removes their records, and their posts if `announce.on_delete` says so.\n" +
			"The garbage-collect of this binary needs no gc: the next start of the registry removes the records.",
		Example:      "  tidings gc config.yml\n  tidings gc --delete config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return runGC(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, flags)
		}),
	}
	c.Flags().BoolVar(&flags.delete, "delete", false, "remove what is found")
	c.Flags().BoolVar(&flags.json, "json", false, "print one JSON object a line")
	return c
}

func runGC(ctx context.Context, out, progress io.Writer, args []string, flags gcFlags) error {
	c, err := newAdminClient(args)
	if err != nil {
		return err
	}
	method := "GET"
	if flags.delete {
		method = "POST"
	}
	bar := terminal.NewProgress(progress, "manifests", 0)
	defer bar.End()
	manifests, query := int64(0), url.Values{}
	for {
		var page admin.OrphansPage
		if err := c.callWhenFree(ctx, bar, method, "/v1/gc", query, &page); err != nil {
			return err
		}
		bar.Add(int64(page.Looked))
		manifests += int64(len(page.Orphans))
		if err := printOrphans(bar.Writer(out), page, flags.json); err != nil {
			return err
		}
		if page.Cursor == "" {
			break
		}
		query.Set("cursor", page.Cursor)
	}
	bar.End()
	switch {
	case flags.json:
	case manifests == 0:
		fmt.Fprintln(out, "Each manifest with records is in the registry's storage.")
	case flags.delete:
		fmt.Fprintf(out, "The records of %s are being removed; `tidings status` shows pending events.\n", cli.Count(manifests, "manifest"))
	default:
		fmt.Fprintf(out, "%s with records not in storage; `tidings gc --delete %s` removes the records.\n", cli.Count(manifests, "manifest"), c.path)
	}
	return nil
}

func printOrphans(out io.Writer, page admin.OrphansPage, asJSON bool) error {
	for _, o := range page.Orphans {
		if asJSON {
			if err := cli.PrintLine(out, o); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(out, "%s@%s\n", o.Repository, o.Digest); err != nil {
			return err
		}
	}
	return nil
}

// busyWait is the time between two attempts while many events are pending.
const busyWait = time.Second

// callWhenFree calls the server, again while many events are pending there.
func (c *adminClient) callWhenFree(ctx context.Context, bar *terminal.Progress, method, path string, query url.Values, v any) error {
	for {
		err := c.call(ctx, method, path, query, v)
		var failed *admin.StatusError
		if !errors.As(err, &failed) || failed.Name != "Busy" {
			bar.Note("")
			return err
		}
		bar.Note("waiting: " + failed.Message)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(busyWait):
		}
	}
}
