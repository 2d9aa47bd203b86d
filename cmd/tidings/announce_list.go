package main

import (
	"context"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
)

func announceListCommand() *cobra.Command {
	var repository string
	var limit int
	var asJSON bool
	c := &cobra.Command{
		Use:   "list <config>",
		Short: "`announce list` lists the posts that a running registry has written, newest first",
		Long: "`announce list` prints a post a line: its time, its state, its URI, the image and what it is about. It asks the registry, which must be\n" +
			"running, on this machine and as the same user or root. The registry asks the account whether it still has the posts.",
		Example:      "  tidings announce list config.yml --repository 'oss/**' --limit 20",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, client *adminClient, out io.Writer, _ []string) error {
			posts := listing[admin.AnnouncementsPage, announce.Announcement]{
				path: "/v1/announcements", query: url.Values{"repository": {repository}}, limit: limit, page: 100,
				rows: func(p *admin.AnnouncementsPage) ([]announce.Announcement, string) { return p.Announcements, p.Cursor },
				line: announcementLine, asJSON: asJSON, none: "There are no posts.",
			}
			return posts.print(ctx, client, out)
		}),
	}
	c.Flags().StringVar(&repository, "repository", "", "only posts about repositories that this glob matches, such as \"oss/**\"")
	c.Flags().IntVar(&limit, "limit", 100, "list at most so many")
	jsonFlag(c, &asJSON)
	return c
}

// announcementLine is a post in a list, its columns separated by tabs.
func announcementLine(a *announce.Announcement) string {
	subject := "-"
	if a.Repository != "" {
		subject = a.Repository
		if len(a.Tags) > 0 {
			subject += ":" + strings.Join(a.Tags, ",")
		} else {
			subject += "@" + a.Digest
		}
	}
	return strings.Join([]string{a.Time.UTC().Format(time.RFC3339), announcementState(a), a.URI, subject, a.About}, "\t")
}

// announcementState says whether the account has a post.
func announcementState(a *announce.Announcement) string {
	switch {
	case a.Problem != "":
		return "not deleted: " + a.Problem
	case a.Deleting:
		return "being deleted"
	case a.Unchecked != "":
		return "posted (not checked)"
	case a.Deleted != "":
		return posted.Deletion(a.Deleted)
	}
	return "posted"
}
