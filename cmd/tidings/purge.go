package main

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

type purgeFlags struct{ yes, json bool }

func purgeCommand() *cobra.Command {
	var flags purgeFlags
	c := &cobra.Command{
		Use:   "purge <config> <repository>",
		Short: "`purge` removes the records, posts, documents and counts of one repository",
		Long: "`purge` needs the server to be running. The images stay in the registry. What other repositories have as well keeps its records,\n" +
			"and posts about several images stay, as with `announce.on_delete: delete`. What was pushed before and is not announced yet will\n" +
			"not be announced. Nothing of the repository is published until the next push to it; to prevent that, remove it from `public`.\n" +
			"It asks first, unless --yes is set. Run it again if it was interrupted.",
		Example:      "  tidings purge config.yml oss/app",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return runPurge(ctx, cmd, args, flags)
		}),
	}
	c.Flags().BoolVar(&flags.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&flags.json, "json", false, "print the result as JSON")
	return c
}

func runPurge(ctx context.Context, cmd *cobra.Command, args []string, flags purgeFlags) error {
	out, messages, repository := cmd.OutOrStdout(), cmd.ErrOrStderr(), args[1]
	c, err := newAdminClient(args[:1])
	if err != nil {
		return err
	}
	if !flags.yes {
		found, err := c.purge(ctx, messages, repository, "GET")
		if err != nil {
			return err
		}
		question := fmt.Sprintf("Remove what was published of %s: %s?", repository, purgedText(&found))
		if err := terminal.Confirm(cmd.InOrStdin(), messages, question); err != nil {
			return err
		}
	}
	found, err := c.purge(ctx, messages, repository, "POST")
	if err != nil {
		return err
	}
	if flags.json {
		return cli.PrintJSON(out, found)
	}
	_, err = fmt.Fprintf(out, "Removing what was published of %s: %s. `tidings status` shows pending events.\n", repository, purgedText(&found))
	return err
}

// purge makes all steps of a purge, or counts what it would remove, and returns the sums.
func (c *adminClient) purge(ctx context.Context, progress io.Writer, repository, method string) (sum reconcile.Purged, err error) {
	bar := terminal.NewProgress(progress, "manifests and posts", 0)
	defer bar.End()
	query := url.Values{"repository": {repository}}
	for {
		var step reconcile.Purged
		if err := c.callWhenFree(ctx, bar, method, "/v1/purge", query, &step); err != nil {
			return sum, err
		}
		sum.Manifests, sum.Records = sum.Manifests+step.Manifests, sum.Records+step.Records
		sum.Posts, sum.Waiting, sum.Stats = sum.Posts+step.Posts, sum.Waiting+step.Waiting, sum.Stats+step.Stats
		bar.Add(int64(step.Manifests + step.Posts))
		if step.Cursor == "" {
			return sum, nil
		}
		query.Set("cursor", step.Cursor)
	}
}

func purgedText(p *reconcile.Purged) string {
	text := fmt.Sprintf("%s of %s, %s", cli.Count(int64(p.Records), "record"), cli.Count(int64(p.Manifests), "manifest"), cli.Count(int64(p.Posts), "post"))
	if p.Waiting > 0 {
		text += ", " + cli.Count(int64(p.Waiting), "version") + " not announced yet"
	}
	if p.Stats > 0 {
		text += ", the counts"
	}
	return text
}
