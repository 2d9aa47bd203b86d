package main

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

type purgeFlags struct{ yes, json bool }

func purgeCommand() *cobra.Command {
	var flags purgeFlags
	c := &cobra.Command{
		Use:   "purge <config> <repository>",
		Short: "`purge` removes the records, posts, documents and counts of one repository",
		Long: "`purge` needs the server to be running. The images stay in the registry. What other repositories have as well keeps its records,\n" +
			"and summary posts stay. Earlier pushes that are not announced yet will not be announced, and their dead letters cannot be\n" +
			"retried. Later pushes are published as usual; to prevent that, remove the repository from `public`.\n\n" +
			"It counts what there is and asks first, unless --yes is set. Then the server does the work: interrupting the command afterwards,\n" +
			"or a restart of the server, does not end it.",
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
	found, err := c.countPublished(ctx, messages, repository)
	if err != nil {
		return err
	}
	if !flags.yes {
		if err := terminal.Confirm(ctx, cmd.InOrStdin(), messages, purgeQuestion(repository, &found)); err != nil {
			return err
		}
	}
	result := purgeResult{Published: found}
	if err := c.purge(ctx, messages, repository, &result.Purge); err != nil {
		return err
	}
	if flags.json {
		return cli.PrintJSON(out, result)
	}
	if found == (reconcile.Published{}) {
		_, err = fmt.Fprintf(out, "Nothing was published of %s. Earlier pushes that are pending will not be published either.\n", repository)
		return err
	}
	_, err = fmt.Fprintf(out, "Purging %s: %s. `tidings status` shows pending events.\n", repository, publishedText(&found))
	return err
}

// purgeQuestion asks for confirmation. A repository of which nothing is published can have pushes
// that are pending.
func purgeQuestion(repository string, found *reconcile.Published) string {
	if *found == (reconcile.Published{}) {
		return fmt.Sprintf("Nothing is published of %s. Purge it anyway, so that its pending pushes are not published?", repository)
	}
	return fmt.Sprintf("Purge %s: %s?", repository, publishedText(found))
}

// purgeResult is what --json prints.
type purgeResult struct {
	reconcile.Published
	admin.Purge
}

// purge purges a repository.
func (c *adminClient) purge(ctx context.Context, progress io.Writer, repository string, result *admin.Purge) error {
	bar := terminal.NewProgress(progress, "repositories", 0)
	defer bar.End()
	return c.callWhenFree(ctx, bar, "POST", "/v1/purge", url.Values{"repository": {repository}}, result)
}

// countPublished counts what a purge would remove.
func (c *adminClient) countPublished(ctx context.Context, progress io.Writer, repository string) (sum reconcile.Published, err error) {
	bar := terminal.NewProgress(progress, "manifests and posts", 0)
	defer bar.End()
	query := url.Values{"repository": {repository}}
	for {
		var step reconcile.Published
		if err := c.callWhenFree(ctx, bar, "GET", "/v1/purge", query, &step); err != nil {
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

func publishedText(p *reconcile.Published) string {
	text := fmt.Sprintf("%s of %s, %s", cli.Count(int64(p.Records), "record"), cli.Count(int64(p.Manifests), "manifest"), cli.Count(int64(p.Posts), "post"))
	if p.Waiting > 0 {
		text += ", " + cli.Count(int64(p.Waiting), "version") + " not announced yet"
	}
	if p.Stats > 0 {
		text += ", the counts"
	}
	return text
}
