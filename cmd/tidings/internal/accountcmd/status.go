package accountcmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config/explain"
	"github.com/tidings-dev/tidings/internal/terminal"
)

func accountStatusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status <config>",
		Short: "`account status` shows the account's identity, session, budget and backlog",
		Long: "`account status` resolves the account's identifier and shows its DID, handle, service and host, the state of its session, the\n" +
			"logins and points that are left, and the pending events of a running registry. It does not log in, and can be used while a\n" +
			"registry is running.",
		Example:      "  tidings account status config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return accountStatus(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func accountStatus(ctx context.Context, out, log io.Writer, args []string, asJSON bool) error {
	o, _, err := accountOptions(args)
	if err != nil {
		return err
	}
	cfg := o.PDS()
	cfg.ReadOnly = true // a server may be running
	bar := terminal.Wait(log, "asking "+o.Account.Service)
	defer bar.End()
	a, err := openAccount(cfg, bar.Writer(log))
	if err != nil {
		return err
	}
	r, err := reportAccount(ctx, a, o)
	bar.End()
	if err != nil {
		return err
	}
	if asJSON {
		return cli.PrintJSON(out, r)
	}
	return r.print(out)
}

// print prints the report for people, one topic a line.
func (r Report) print(out io.Writer) error {
	w := cli.NewTable(out)
	row := w.Row
	printIdentity(row, pds.Status{DID: r.DID, Handle: r.Handle, Service: r.Service, Host: r.Host})
	if r.Problem != "" {
		row("problem", "%s", r.Problem)
	}
	r.Session.print(row)
	r.Budget.print(row)
	r.Backlog.Print(row)
	return w.Flush()
}

func (s sessionState) print(row func(string, string, ...any)) {
	switch {
	case !s.LoggedIn:
		row("session", "none; the next call logs in")
	case s.Until.IsZero():
		row("session", "logged in")
	case s.Until.Before(time.Now()):
		row("session", "ended at %s; the next call logs in", s.Until.Format(time.RFC3339))
	default:
		row("session", "valid until %s, and longer if it is used", s.Until.Format(time.RFC3339))
	}
	if s.Refused > 0 {
		row("", "the service has refused the password %s", times(s.Refused))
	}
	topic := "logins"
	for _, l := range s.Logins {
		row(topic, "%d of %d in %s", l.Used, l.Limit, explain.Duration(time.Duration(l.Seconds)*time.Second))
		topic = ""
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (b budgetState) print(row func(string, string, ...any)) {
	if b.Hour == nil && b.Day == nil {
		row("budget", "no limit")
	}
	topic := "budget"
	for _, p := range []struct {
		*pointState
		window string
	}{{b.Hour, "hour"}, {b.Day, "day"}} {
		if p.pointState != nil {
			row(topic, "%d of %d points left in the %s", p.Left, p.Limit, p.window)
			topic = ""
		}
	}
	if !b.Until.IsZero() {
		row("", "the service wants no writes before %s", b.Until.Format(time.RFC3339))
	}
}
