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
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/notifier/inspect"
)

func journalCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "journal",
		Short: "`journal` shows the journal of a registry, and processes the pending events of a stopped one",
	}
	parent.AddCommand(journalInspectCommand(), journalDrainCommand())
	return parent
}

func journalInspectCommand() *cobra.Command {
	var events int
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect <config>",
		Short: "`journal inspect` shows the files of the journal, how far each sink is, pending events and interrupted requests",
		Long: "`journal inspect` asks a running registry, and reads the data folder of a stopped one without changing it. The digest and the\n" +
			"repository of private images are shown as well.",
		Example:      "  tidings journal inspect config.yml --events 10",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, c *adminClient, out io.Writer, _ []string) error {
			report, err := c.inspect(ctx, events)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(out, report)
			}
			return printJournal(out, report)
		}),
	}
	c.Flags().IntVar(&events, "events", 0, fmt.Sprintf("also show so many pending events of each sink, at most %d", inspect.MaxEvents))
	jsonFlag(c, &asJSON)
	return c
}

// inspect describes the journal of a running registry, or of a stopped one.
func (c *adminClient) inspect(ctx context.Context, events int) (*inspect.Report, error) {
	if events < 0 || events > inspect.MaxEvents {
		return nil, fmt.Errorf("--events must be a number from 0 to %d", inspect.MaxEvents)
	}
	report := &inspect.Report{}
	err := c.Call(ctx, "GET", "/v1/journal", url.Values{"events": {strconv.Itoa(events)}}, report)
	if !errors.Is(err, admin.ErrNotRunning) {
		return report, err
	}
	report, err = middleware.InspectJournal(c.options, events)
	if errors.Is(err, datafolder.ErrInUse) {
		return nil, cli.NoSocket(c.options)
	}
	return report, err
}

func printJournal(out io.Writer, r *inspect.Report) error {
	w := cli.NewTable(out)
	fmt.Fprintf(w, "journal\t%s in %s\n", r.ID, r.Folder)
	for _, s := range r.Streams {
		fmt.Fprintf(w, "%s\tevents %d to %d, %s in %s\n", s.Stream, s.First, s.Last, cli.Size(s.Bytes), cli.Count(int64(len(s.Segments)), "file"))
		for _, g := range s.Segments {
			fmt.Fprintf(w, "\t%s: events %d to %d, %s\n", g.File, g.First, g.Last, cli.Size(g.Bytes))
		}
	}
	fmt.Fprintf(w, "limit\t%s of events in each stream\n", cli.Size(r.Limit))
	for _, s := range r.Sinks {
		paused := ""
		if !s.Paused.IsZero() {
			paused = ", paused by operator since " + s.Paused.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s (%s)\tat %d, %s%s\n", s.Sink, s.Stream, s.Position, cli.Count(int64(s.Pending), "pending event"), paused)
		for i := range s.Events {
			fmt.Fprintf(w, "\t%s\n", eventLine(&s.Events[i]))
		}
	}
	if r.InProgress > 0 {
		fmt.Fprintf(w, "in progress\t%s\n", cli.Count(int64(r.InProgress), "request"))
	}
	for i, in := range r.Intents {
		topic := ""
		if i == 0 {
			topic = "interrupted"
		}
		fmt.Fprintf(w, "%s\t%s\n", topic, subject(in.Operation, in.Repository, in.Tag, in.Digest)+in.Unreadable)
	}
	return w.Flush()
}

// eventLine is a pending event in one line.
func eventLine(e *inspect.Event) string {
	if e.Unreadable != "" {
		return fmt.Sprintf("%d: %s", e.Seq, e.Unreadable)
	}
	line := fmt.Sprintf("%d: %s %s", e.Seq, e.Time.UTC().Format(time.RFC3339), subject(e.Operation, e.Repository, e.Tag, e.Digest))
	if e.Retry != "" {
		line += ", retry of " + e.Retry
	}
	return line
}

func journalDrainCommand() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "drain <config>",
		Short: "`journal drain` processes the pending events of a stopped registry",
		Long: "`journal drain` needs the registry to be stopped. It serves neither the registry nor the account, and ends with 0 once no event is\n" +
			"pending, for example before a data folder is given up. It fails, with the reason, if a sink with pending events is paused or\n" +
			"suspended, or at the timeout. Versions that wait for a cooldown or a summary are not pending events: they are kept in the state.",
		Example:      "  tidings journal drain config.yml --timeout 10m",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return journalDrain(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, timeout)
		}),
	}
	c.Flags().DurationVar(&timeout, "timeout", time.Hour, "give up after this time; events that are processed by then stay so")
	return c
}

func journalDrain(ctx context.Context, out, log io.Writer, args []string, timeout time.Duration) error {
	o, _, err := cli.Options(args)
	if err != nil {
		return err
	}
	host, err := cli.StoppedHost(o, args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	progress := terminal.NewProgress(log, "events", 0)
	defer progress.End()
	total := int64(0)
	err = middleware.Drain(ctx, host, progress.Writer(log), func(pending uint64) {
		total = max(total, int64(pending))
		progress.Set(total-int64(pending), total)
	})
	progress.End()
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("not everything was processed within %s: %w", timeout, err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "The journal is empty: %s processed.\n", cli.Count(total, "pending event"))
	return err
}
