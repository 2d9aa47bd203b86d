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
	"github.com/tidings-dev/tidings/notifier/journal"
)

func deadCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "dead",
		Short: "`dead` lists, retries and removes dead letters: events that a sink has given up",
	}
	parent.AddCommand(deadListCommand(), deadShowCommand(), deadRetryCommand(), deadDropCommand())
	return parent
}

func deadListCommand() *cobra.Command {
	var sink string
	var limit int
	var asJSON bool
	c := &cobra.Command{
		Use:   "list <config>",
		Short: "`dead list` lists the dead letters of a running registry with their reasons",
		Long: "`dead list` prints one letter a line, with the name by which the other commands know it, such as records/17. A letter of several\n" +
			"events has their first number; the journal was at its limit when they were given up, or the letters were merged.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return deadList(ctx, cmd.OutOrStdout(), args, sink, limit, asJSON)
		},
	}
	c.Flags().StringVar(&sink, "sink", "", "only those of one sink")
	c.Flags().IntVar(&limit, "limit", 1000, "list at most so many")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

// deadPage is how many letters are asked for at once.
const deadPage = 500

func deadList(ctx context.Context, out io.Writer, args []string, sink string, limit int, asJSON bool) error {
	c, err := newAdminClient(args)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	query := url.Values{"sink": {sink}}
	for limit > 0 {
		query.Set("limit", strconv.Itoa(min(limit, deadPage)))
		var page admin.Page
		if err := c.call(ctx, "GET", "/v1/dead", query, &page); err != nil {
			return err
		}
		for i := range page.Letters {
			l := &page.Letters[i]
			if asJSON {
				if err := printLine(out, l); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", letterName(l), l.Time.UTC().Format(time.RFC3339), letterSubject(l), l.Reason)
		}
		limit -= len(page.Letters)
		if page.Cursor == "" {
			return nil
		}
		query.Set("cursor", page.Cursor)
	}
	return nil
}

// letterName is the name of a letter in commands: SINK/SEQ, with "/pulls" at the end for
// the stream of pulls.
func letterName(l *admin.Letter) string {
	name := fmt.Sprintf("%s/%d", l.Sink, l.Seq)
	if l.Stream == journal.Pulls.String() {
		name += "/pulls"
	}
	return name
}

// letterPath returns the path and the query of the letter with a name.
func letterPath(name string) (path string, query url.Values, err error) {
	parts := strings.Split(name, "/")
	query = url.Values{}
	if len(parts) == 3 && parts[2] == "pulls" {
		parts = parts[:2]
		query.Set("stream", journal.Pulls.String())
	}
	if len(parts) == 2 {
		if _, err := strconv.ParseUint(parts[1], 10, 64); err == nil && parts[0] != "" {
			return "/v1/dead/" + url.PathEscape(parts[0]) + "/" + parts[1], query, nil
		}
	}
	return "", nil, fmt.Errorf("%q is no name of a dead letter, such as records/17; `tidings dead list` has the names", name)
}

// letterSubject says what a letter is about.
func letterSubject(l *admin.Letter) string {
	if l.Repository == "" {
		return count(int64(l.Events), "event")
	}
	text := l.Operation + " " + l.Repository
	if l.Tag != "" {
		text += ":" + l.Tag
	}
	if l.Digest != "" {
		text += "@" + l.Digest
	}
	return text
}

func deadShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:          "show <config> <letter>",
		Short:        "`dead show` prints a dead letter as JSON, with its event if it is kept",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			var letter admin.Letter
			if err := callLetter(ctx, args, "GET", "", &letter); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), letter)
		},
	}
}

func deadRetryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "retry <config> <letter>...",
		Short: "`dead retry` lets the sinks handle the events of dead letters again",
		Long: "`dead retry` adds the events to the journal again, each for the sink that gave it up. A letter disappears when its sink has\n" +
			"processed the event, and gets the new reason if that fails. Mend the cause first. A letter without its event can't be retried.",
		Args:         cobra.MinimumNArgs(2),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			for _, name := range args[1:] {
				if err := callLetter(ctx, []string{args[0], name}, "POST", "/retry", nil); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is being retried.\n", name)
			}
			return nil
		},
	}
}

func deadDropCommand() *cobra.Command {
	return &cobra.Command{
		Use:          "drop <config> <letter>...",
		Short:        "`dead drop` removes dead letters, with their events",
		Args:         cobra.MinimumNArgs(2),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			for _, name := range args[1:] {
				if err := callLetter(ctx, []string{args[0], name}, "DELETE", "", nil); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is dropped.\n", name)
			}
			return nil
		},
	}
}

// callLetter sends a request about a letter. args are the configuration and the name.
func callLetter(ctx context.Context, args []string, method, action string, v any) error {
	path, query, err := letterPath(args[1])
	if err != nil {
		return err
	}
	c, err := newAdminClient(args[:1])
	if err != nil {
		return err
	}
	return c.call(ctx, method, path+action, query, v)
}
