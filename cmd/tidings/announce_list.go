package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/announce"
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
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return announceList(ctx, cmd.OutOrStdout(), args, repository, limit, asJSON)
		},
	}
	c.Flags().StringVar(&repository, "repository", "", "only posts about repositories that this glob matches, such as \"oss/**\"")
	c.Flags().IntVar(&limit, "limit", 100, "list at most so many")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

// announcePage is how many posts are asked for at once.
const announcePage = 100

func announceList(ctx context.Context, out io.Writer, args []string, repository string, limit int, asJSON bool) error {
	if limit < 1 {
		return fmt.Errorf("--limit %d is invalid; it must be at least 1", limit)
	}
	c, err := newAdminClient(args)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	query := url.Values{"repository": {repository}}
	for limit > 0 {
		query.Set("limit", strconv.Itoa(min(limit, announcePage)))
		var page admin.AnnouncementsPage
		if err := c.call(ctx, "GET", "/v1/announcements", query, &page); err != nil {
			return err
		}
		for i := range page.Announcements {
			a := &page.Announcements[i]
			if !asJSON {
				fmt.Fprintln(w, announcementLine(a))
			} else if err := printLine(out, a); err != nil {
				return err
			}
		}
		limit -= len(page.Announcements)
		if page.Cursor == "" {
			return nil
		}
		query.Set("cursor", page.Cursor)
	}
	return nil
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
	case a.Deleted == announce.DeletedWithdrawn:
		return "withdrawn"
	case a.Deleted == announce.DeletedImage:
		return "deleted with its image"
	case a.Deleted == announce.DeletedOwner:
		return "deleted with the data of its owner"
	case a.Deleted == announce.DeletedAccount:
		return "deleted in the account"
	}
	return "posted"
}
