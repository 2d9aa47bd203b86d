package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/deadletters"
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
		Example:      "  tidings dead list config.yml --sink records",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, client *adminClient, out io.Writer, _ []string) error {
			letters := listing[admin.Page, admin.Letter]{
				path: "/v1/dead", query: url.Values{"sink": {sink}}, limit: limit, page: 500,
				rows: func(p *admin.Page) ([]admin.Letter, string) { return p.Letters, p.Cursor }, line: letterLine, asJSON: asJSON,
				none: "There are no dead letters.",
			}
			return letters.print(ctx, client, out)
		}),
	}
	c.Flags().StringVar(&sink, "sink", "", "only those of one sink")
	c.Flags().IntVar(&limit, "limit", 1000, "list at most so many")
	jsonFlag(c, &asJSON)
	return c
}

// letterLine is a letter in a list.
func letterLine(l *admin.Letter) string {
	return strings.Join([]string{letterName(l), l.Time.UTC().Format(time.RFC3339), letterSubject(l), l.Reason}, "\t")
}

// letterName is the name of a letter in commands.
func letterName(l *admin.Letter) string {
	box := deadletters.Box{Sink: l.Sink, Stream: journal.Pushes}
	if l.Stream == journal.Pulls.String() {
		box.Stream = journal.Pulls
	}
	return box.Name(l.Seq)
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
		return cli.Count(int64(l.Events), "event")
	}
	return subject(l.Operation, l.Repository, l.Tag, l.Digest)
}

// subject is an operation with its image, such as "push oss/app:v1@sha256:…".
func subject(operation, repository, tag, digest string) string {
	text := strings.TrimSpace(operation + " " + repository)
	if tag != "" {
		text += ":" + tag
	}
	if digest != "" {
		text += "@" + digest
	}
	return text
}

func deadShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:          "show <config> <letter>",
		Short:        "`dead show` prints a dead letter of a running registry as JSON, with its event if it is kept",
		Example:      "  tidings dead show config.yml records/17",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, c *adminClient, out io.Writer, args []string) error {
			var letter admin.Letter
			if err := c.callLetter(ctx, "GET", args[1], "", &letter); err != nil {
				return err
			}
			return cli.PrintJSON(out, letter)
		}),
	}
}

func deadRetryCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "retry <config> <letter>...",
		Short: "`dead retry` lets the sinks of a running registry handle the events of dead letters again",
		Long: "`dead retry` adds the events to the journal again, each for the sink that gave it up. A letter disappears when its sink has\n" +
			"processed the event, and gets the new reason if that fails. Mend the cause first. A letter without its event can't be retried,\n" +
			"and neither can that of a push whose repository was purged since.",
		Example:      "  tidings dead retry config.yml records/17 counters/5/pulls",
		Args:         cobra.MinimumNArgs(2),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, c *adminClient, out io.Writer, args []string) error {
			return c.eachLetter(ctx, out, args[1:], "POST", "/retry", "retrying", "%s is being retried.\n", asJSON)
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func deadDropCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:          "drop <config> <letter>...",
		Short:        "`dead drop` removes dead letters of a running registry, with their events",
		Example:      "  tidings dead drop config.yml records/17",
		Args:         cobra.MinimumNArgs(2),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, c *adminClient, out io.Writer, args []string) error {
			return c.eachLetter(ctx, out, args[1:], "DELETE", "", "dropped", "%s is dropped.\n", asJSON)
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

// letterResult is the line of JSON about a letter that was retried or dropped.
type letterResult struct {
	Letter string `json:"letter"`
	State  string `json:"state"` // "retrying" or "dropped"
}

// eachLetter sends a request about each letter, and ends at the first that fails. It sends none
// if a name is invalid.
func (c *adminClient) eachLetter(ctx context.Context, out io.Writer, names []string, method, action, state, line string, asJSON bool) error {
	for _, name := range names {
		if _, _, err := letterPath(name); err != nil {
			return err
		}
	}
	bar := terminal.NewProgress(c.log, "dead letters", int64(len(names)))
	defer bar.End()
	out = bar.Writer(out)
	for _, name := range names {
		if err := c.callLetter(ctx, method, name, action, nil); err != nil {
			return err // an error about the letter has its name
		}
		if !asJSON {
			fmt.Fprintf(out, line, name)
		} else if err := cli.PrintLine(out, letterResult{name, state}); err != nil {
			return err
		}
		bar.Add(1)
	}
	return nil
}

// callLetter sends a request about the letter with a name.
func (c *adminClient) callLetter(ctx context.Context, method, name, action string, v any) error {
	path, query, err := letterPath(name)
	if err != nil {
		return err
	}
	return c.call(ctx, method, path+action, query, v)
}
