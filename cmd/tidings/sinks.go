package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/operate"
)

func sinksCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "sinks",
		Short: "`sinks` shows, pauses and resumes the sinks of a running registry, and skips or repeats their events",
		Long: "`sinks` needs the registry to be running. The sinks are records, announce, remote and counters, as far as they are configured;\n" +
			"counters and remote read both streams of the journal, pushes and pulls.",
	}
	parent.AddCommand(sinksListCommand(), sinksPauseCommand(), sinksResumeCommand(), sinksSkipCommand(), sinksRewindCommand())
	return parent
}

func sinksListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:          "list <config>",
		Short:        "`sinks list` shows the sinks of a running registry: state, position, pending events and dead letters",
		Example:      "  tidings sinks list config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, c *adminClient, out io.Writer, _ []string) error {
			var page admin.SinkPage
			if err := c.call(ctx, "GET", "/v1/sinks", nil, &page); err != nil {
				return err
			}
			return printSinks(out, page.Sinks, asJSON)
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

// printSinks prints sinks in a table, or one JSON object a line.
func printSinks(out io.Writer, sinks []admin.Sink, asJSON bool) error {
	w := cli.NewTable(out)
	for i := range sinks {
		s := &sinks[i]
		if asJSON {
			if err := cli.PrintLine(out, s); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%s\t%s\tat %d of %d\t%s\n", s.Sink, s.Stream, s.Position, s.Last, cli.SinkText(s.SinkHealth))
		if s.Paused() {
			fmt.Fprintf(w, "\t\t\t%s\n", cli.PauseText(s.SinkHealth))
		}
	}
	return w.Flush()
}

func sinksPauseCommand() *cobra.Command {
	c := sinkActionCommand("pause")
	c.Short = "`sinks pause` pauses a sink of a running registry until it is resumed, also over restarts"
	c.Long = "`sinks pause` waits up to 20 seconds until the sink has finished its batch, which can take longer if\n" +
		"the account cannot be written. The events of a paused sink stay pending in the journal. At the journal's limit (journal.limit)\n" +
		"the oldest of them become dead letters. The health is degraded meanwhile."
	return c
}

func sinksResumeCommand() *cobra.Command {
	c := sinkActionCommand("resume")
	c.Short = "`sinks resume` lets a paused sink of a running registry continue"
	return c
}

// sinkActionCommand returns a command that lets the registry act on a sink, and prints its
// state.
func sinkActionCommand(action string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:          action + " <config> <sink>",
		Example:      "  tidings sinks " + action + " config.yml announce",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, c *adminClient, out io.Writer, args []string) error {
			var page admin.SinkPage
			if err := c.callSlowly(ctx, "POST", sinkPath(args[1], action), nil, &page); err != nil {
				return err
			}
			return printSinks(out, page.Sinks, asJSON)
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func sinkPath(sink, action string) string { return "/v1/sinks/" + url.PathEscape(sink) + "/" + action }

func sinksSkipCommand() *cobra.Command {
	var stream string
	var to uint64
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "skip <config> <sink>",
		Short: "`sinks skip` lets a sink of a running registry give up its first pending event, or those up to a sequence number",
		Long: "`sinks skip` keeps the events as dead letters with the reason \"skipped by operator\"; `tidings dead retry` handles them again.\n" +
			"`tidings journal inspect --events 10` shows the pending events. Events in the batch that is on its way are taken out of it if\n" +
			"they are not written yet, which can be found out only while the account can be read. At most 10000 events are skipped at once.\n" +
			"The command asks first, unless --yes is set.",
		Example:      "  tidings sinks skip config.yml records\n  tidings sinks skip config.yml counters --stream pulls --to 1234",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
	}
	c.RunE = withAdmin(func(ctx context.Context, client *adminClient, out io.Writer, args []string) error {
		what := "its first pending event"
		query := url.Values{"stream": {stream}}
		if to > 0 {
			what = fmt.Sprintf("its pending events up to %d", to)
			query.Set("to", strconv.FormatUint(to, 10))
		}
		path := sinkPath(args[1], "skip")
		if err := confirm(ctx, c, client, yes, path, query, fmt.Sprintf("Let the sink %s give up %s?", args[1], what)); err != nil {
			return err
		}
		return act(ctx, client, out, path, query, asJSON, func(done *operate.Skipped) string {
			return skippedText(done)
		})
	})
	c.Flags().Uint64Var(&to, "to", 0, "the last event to skip, by its sequence number; default: the first pending one")
	c.Flags().StringVar(&stream, "stream", journal.Pushes.String(), "of the journal: pushes or pulls")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	jsonFlag(c, &asJSON)
	return c
}

func skippedText(s *operate.Skipped) string {
	if s.Events == 1 && s.First == s.Last {
		return fmt.Sprintf("Event %d skipped; `tidings dead list` shows it.", s.First)
	}
	return fmt.Sprintf("%s of %d to %d skipped; `tidings dead list` shows them.", cli.Count(int64(s.Events), "event"), s.First, s.Last)
}

func sinksRewindCommand() *cobra.Command {
	var to uint64
	var since string
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "rewind <config> <sink>",
		Short: "`sinks rewind` lets the sink records or announce of a running registry handle earlier events again",
		Long: "`sinks rewind` moves a sink back, as far as the journal still has the events. Nothing is written twice: records writes what the\n" +
			"ledger does not have and storage still has, and announce posts images that have no post; those pushed more than\n" +
			"announce.max_age ago come into a summary, and images of other registries keep their decision. Events with a dead letter are\n" +
			"passed over. The sinks counters and remote cannot be rewound, since they would count or report each event again.\n" +
			"The command asks first, unless --yes is set.",
		Example:      "  tidings sinks rewind config.yml records --since 2026-01-31T12:00:00Z\n  tidings sinks rewind config.yml announce --to 1200",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
	}
	c.RunE = withAdmin(func(ctx context.Context, client *adminClient, out io.Writer, args []string) error {
		query := url.Values{}
		what := "after event " + strconv.FormatUint(to, 10)
		switch {
		case c.Flags().Changed("to") == (since != ""):
			return errors.New("either --to or --since is required")
		case since != "":
			if _, err := time.Parse(time.RFC3339, since); err != nil {
				return fmt.Errorf("--since: %q is no time such as 2026-01-31T12:00:00Z", since)
			}
			query.Set("since", since)
			what = "since " + since
		default:
			query.Set("to", strconv.FormatUint(to, 10))
		}
		path := sinkPath(args[1], "rewind")
		if err := confirm(ctx, c, client, yes, path, query, fmt.Sprintf("Let the sink %s handle all events %s again?", args[1], what)); err != nil {
			return err
		}
		return act(ctx, client, out, path, query, asJSON, func(done *operate.Rewound) string {
			return fmt.Sprintf("The sink %s handles %s after %d again.", args[1], cli.Count(int64(done.Events), "event"), done.Position)
		})
	})
	c.Flags().Uint64Var(&to, "to", 0, "handle the events after this sequence number again; 0: all that the journal has, if it has all")
	c.Flags().StringVar(&since, "since", "", "handle the events since this time again, such as 2026-01-31T12:00:00Z")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	jsonFlag(c, &asJSON)
	return c
}

// act sends a request that acts on a sink, and prints the answer as JSON or as text.
func act[A any](ctx context.Context, c *adminClient, out io.Writer, path string, query url.Values, asJSON bool, text func(*A) string) error {
	answer := new(A)
	if err := c.callSlowly(ctx, "POST", path, query, answer); err != nil {
		return err
	}
	if asJSON {
		return cli.PrintJSON(out, answer)
	}
	_, err := fmt.Fprintln(out, text(answer))
	return err
}

// confirm asks a question before a request, unless yes is set or the request would be refused.
func confirm(ctx context.Context, c *cobra.Command, client *adminClient, yes bool, path string, query url.Values, question string) error {
	if yes {
		return nil
	}
	if err := client.call(ctx, "GET", path, query, nil); err != nil {
		return err
	}
	return terminal.Confirm(ctx, c.InOrStdin(), c.ErrOrStderr(), question)
}
