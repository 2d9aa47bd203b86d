package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
)

func announceDeleteCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "delete <config> <uri>...",
		Short: "`announce delete` deletes posts that a running registry has written",
		Long: "`announce delete` deletes posts, with the documents of their versions, and asks first. Pages and feeds keep the versions and no longer\n" +
			"name the posts. The images are not announced again under the same tags; a new image, or a new version of it, is. Others may have\n" +
			"copies of what was published. The registry must be running, on this machine and as the same user or root.",
		Example:      "  tidings announce delete config.yml at://did:web:registry.example.com/app.bsky.feed.post/3mabcdefghijk",
		Args:         cobra.MinimumNArgs(2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return announceDelete(ctx, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args, yes)
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "delete without asking")
	return c
}

func announceDelete(ctx context.Context, in io.Reader, out, log io.Writer, args []string, yes bool) error {
	c, err := newAdminClient(args[:1])
	if err != nil {
		return err
	}
	uris := args[1:]
	if !yes {
		for _, uri := range uris {
			a, err := findAnnouncement(ctx, c, uri)
			if err != nil {
				return err
			}
			if a.Deleted != "" && a.Deleted != posted.DeletedAccount && a.Problem == "" {
				return fmt.Errorf("%s is already deleted (%s)", uri, announcementState(a))
			}
			fmt.Fprintln(out, strings.ReplaceAll(announcementLine(a), "\t", "  "))
		}
		if err := terminal.Confirm(ctx, in, log, fmt.Sprintf("Delete %s for good?", cli.Count(int64(len(uris)), "post"))); err != nil {
			return err
		}
	}
	bar := terminal.NewProgress(log, "posts", int64(len(uris)))
	defer bar.End()
	out = bar.Writer(out)
	for _, uri := range uris {
		var result announce.Withdrawal
		if err := c.call(ctx, "DELETE", "/v1/announcements", url.Values{"uri": {uri}}, &result); err != nil {
			return err
		}
		switch {
		case result.Pending != "":
			fmt.Fprintf(out, "%s is withdrawn, and will be deleted: %s.\n", uri, result.Pending)
		case result.Missing:
			fmt.Fprintf(out, "%s is withdrawn; the account did not have it any more.\n", uri)
		default:
			fmt.Fprintf(out, "%s is deleted.\n", uri)
		}
		bar.Add(1)
	}
	return nil
}

func findAnnouncement(ctx context.Context, c *adminClient, uri string) (*announce.Announcement, error) {
	var page admin.AnnouncementsPage
	if err := c.call(ctx, "GET", "/v1/announcements", url.Values{"uri": {uri}}, &page); err != nil {
		return nil, err
	}
	if len(page.Announcements) != 1 {
		return nil, fmt.Errorf("the registry does not know %s", uri)
	}
	return &page.Announcements[0], nil
}
