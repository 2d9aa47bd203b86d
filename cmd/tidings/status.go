package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/config/explain"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/middleware/admin"
)

// Errors of `status` if the registry is not healthy; the reasons have been printed.
var (
	errDegraded = errors.New("the registry is degraded")
	errBroken   = errors.New("the registry is broken")
)

// statusUnknown reports whether a command is `status`, and its error does not say that the
// registry works: it is broken or not running, or the command could not ask it. A monitor must not
// take a wrong file or flag for a registry that works.
func statusUnknown(c *cobra.Command, err error) bool {
	return c.CommandPath() == "tidings status" && !errors.Is(err, errDegraded)
}

func statusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status <config>",
		Short: "`status` shows the state of a running registry",
		Long: "`status` shows what is configured, the pending events and the speed of each sink, dead letters, Redis, the account, relays and\n" +
			"the free disk space of a running registry. The exit code is 0 if it is healthy, 1 if it is degraded (it works, and the reasons\n" +
			"are printed), and 2 if it is broken (pushes are refused, or nothing can be published until somebody acts) or not running, or if\n" +
			"the command can't ask it, for example because the file or a flag is wrong.",
		Example:      "  tidings status config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: withAdmin(func(ctx context.Context, c *adminClient, out io.Writer, _ []string) error {
			return c.status(ctx, out, asJSON)
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func (c *adminClient) status(ctx context.Context, out io.Writer, asJSON bool) error {
	var s admin.Status
	if err := c.call(ctx, "GET", "/v1/status", nil, &s); err != nil {
		return err
	}
	var err error
	if asJSON {
		err = cli.PrintJSON(out, s)
	} else {
		err = printStatus(out, c.options, &s)
	}
	if err != nil {
		return err
	}
	switch s.Status {
	case admin.OK:
		return nil
	case admin.Degraded:
		return errDegraded
	}
	return errBroken
}

// printStatus prints the status for people, one topic a line.
func printStatus(out io.Writer, o *config.Options, s *admin.Status) error {
	w := cli.NewTable(out)
	row := w.Row
	rows := func(topic string, lines []string) {
		for _, line := range lines {
			row(topic, "%s", line)
			topic = ""
		}
	}
	row("status", "%s", s.Status)
	rows("", s.Reasons)
	row("process", "%d, since %s", s.PID, s.Started.UTC().Format(time.RFC3339))
	row("data", "%s", s.Data)
	rows("configured", configured(o))
	var sinks []string
	for i := range s.Sinks {
		sinks = append(sinks, sinkLine(&s.Sinks[i]))
	}
	rows("sinks", sinks)
	if s.Parked > 0 {
		row("parked", "%s: the handle of the owner is not resolved", cli.Count(int64(s.Parked), "pending push"))
	}
	health, err := cli.DecodeHealth(s)
	if err != nil {
		return err
	}
	printHealth(row, &health)
	var disks []string
	for _, d := range s.Disks {
		disks = append(disks, fmt.Sprintf("%s free for %s; writes pause below %s", cli.Size(int64(d.Free)), d.Path, cli.Size(int64(d.Reserve))))
	}
	rows("disk", disks)
	return w.Flush()
}

// configured is what the options ask for.
func configured(o *config.Options) []string {
	lines := []string{"no public repository"}
	if len(o.Public) > 0 {
		lines[0] = "public: " + explain.OneOf(o.Public)
	}
	switch {
	case o.Hold != nil:
		lines = append(lines, "publishes to the hold "+o.Hold.Hostname)
	case o.Account != nil:
		lines = append(lines, "publishes to "+o.Account.Identifier+" on "+o.Account.Service)
	case o.Remote != nil:
		lines = append(lines, "reports pushes to the hold "+o.Remote.Hold)
	default:
		lines = append(lines, "counts only; nothing is published")
	}
	if o.Announce != nil {
		lines = append(lines, "announces "+explain.Tags(o.Announce))
	}
	if o.Redis != nil {
		lines = append(lines, "sums counts in Redis as "+o.Redis.Name)
	}
	return lines
}

// sinkLine is the state of a sink with its speed.
func sinkLine(s *admin.Sink) string {
	line := fmt.Sprintf("%s (%s): %s", s.Sink, s.Stream, cli.SinkText(s.SinkHealth))
	if s.Rate > 0 {
		line += fmt.Sprintf(", %.3g events/s", s.Rate)
	}
	if !s.Ends.IsZero() {
		line += ", done at about " + s.Ends.UTC().Format(time.RFC3339)
	}
	return line
}

func printHealth(row func(string, string, ...any), h *middleware.Health) {
	if r := h.Redis; r != nil {
		row("redis", "%s", cli.WithReason(r.Status, r.Reason))
		for _, warning := range r.Warnings {
			row("", "%s", warning)
		}
	}
	if a := h.Hold; a != nil {
		row("hold", "%s, %s", a.DID, cli.WithReason(a.Status, a.Reason))
		if a.MovedTo != "" {
			row("", "it has moved to %s", a.MovedTo)
		}
		for _, r := range a.Relays {
			row("relay", "%s: %s", r.Relay, cli.WithReason(cmp.Or(string(r.State), "not asked yet"), r.Reason))
		}
	}
	if a := h.Account; a != nil {
		row("account", "%s on %s: %s", a.DID, a.Service, a.Status)
		if b := a.Backlog; b != nil {
			text := cli.Count(int64(b.Writes), "pending write")
			if !b.Ends.IsZero() {
				text += "; there are points for all of them at about " + b.Ends.UTC().Format(time.RFC3339)
			}
			row("", "%s", text)
		}
	}
	if r := h.Remote; r != nil {
		row("remote", "%s, as %s: %s", r.Hold, r.DID, cli.WithReason(r.Status, r.Reason))
	}
	if h.Repair != "" {
		row("repair", "%s", h.Repair)
	}
	if s := h.Stats; s != nil {
		row("stats", "records: %s", s.Status)
	}
	if a := h.AppView; a != nil {
		row("appview", "%s: %s", a.Host, cli.WithReason(cmp.Or(string(a.State), "not asked yet"), a.Reason))
	}
}
