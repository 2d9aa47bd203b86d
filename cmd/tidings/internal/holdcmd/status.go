package holdcmd

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

func holdStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status <config>",
		Short: "`hold status` shows the account's identity, contents and health",
		Long: "`hold status` shows the account's identity, head commit, records per collection, event log, disk usage, whether writes would be\n" +
			"refused, and whether each relay has the last commit. While a server is running it shows less, and what the server reports.\n" +
			"`hold verify` checks for damage.",
		Example:      "  tidings hold status config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return holdStatus(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		}),
	}
}

func holdStatus(ctx context.Context, out, log io.Writer, args []string) (err error) {
	o, _, err := holdOptions(args)
	if err != nil {
		return err
	}
	if err := cli.CheckFolder(o); err != nil {
		return err
	}
	cfg, old, err := hold.Offline(RepoConfig(o, log))
	if err != nil {
		return err
	}
	public, err := cfg.Key.PublicKey()
	if err != nil {
		return err
	}
	unlock, err := datafolder.Lock(o.LockFile())
	running := errors.Is(err, datafolder.ErrInUse)
	if err != nil && !running {
		return err
	}
	w := cli.NewTable(out)
	defer func() { err = errors.Join(err, w.Flush()) }()
	row := w.Row
	row("account", "%s", cfg.DID)
	row("handle", "%s", cfg.Handle)
	if moved := o.Hold.MovedTo; moved != nil {
		row("moved", "to %s, by hold.moved_to", moved.Service)
	}
	row("key", "%s, in %s", public.DIDKey(), o.KeyFile())
	if len(old) > 0 {
		row("", "and %s next to it", cli.Count(int64(len(old)), "previous key"))
	}
	if running {
		return printRunning(ctx, row, o, cfg)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	st, err := repo.ReadStatus(cfg)
	if err != nil {
		return err
	}
	printStopped(row, o, st)
	return printRelays(ctx, row, o, cfg.DID, st.Head.Rev)
}

// printRelays asks the relays of the configuration whether they have the last
// commit.
func printRelays(ctx context.Context, row func(string, string, ...any), o *config.Options, did, rev string) error {
	if o.Hold.MovedTo != nil || len(o.Hold.Relays) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	relays, err := crawl.Check(ctx, o.Hold.Relays, o.Hold.Hostname, did, rev)
	if err != nil {
		return err
	}
	for _, s := range relays {
		switch {
		case s.State != crawl.StateCurrent:
			row("relay", "%s: %s: %s", s.Relay, s.State, s.Reason)
		case s.Lag > 0:
			row("relay", "%s: lacks the last commit, from %s ago", s.Relay, s.Lag.Round(time.Second))
		default:
			row("relay", "%s: %s", s.Relay, s.State)
		}
	}
	return nil
}

// relayTimeout bounds the requests to all relays.
const relayTimeout = 20 * time.Second

func printStopped(row func(string, string, ...any), o *config.Options, st repo.Status) {
	row("server", "stopped")
	row("head", "%s, %s ago", st.Head.Rev, -st.Ahead.Round(time.Second))
	row("", "commit %s", st.Head.Commit)
	total := int64(0)
	for i, c := range st.Collections {
		topic := ""
		if i == 0 {
			topic = "records"
		}
		row(topic, "%d %s", c.Records, c.NSID)
		total += c.Records
	}
	row("", "%d in total", total)
	row("blobs", "%d, %s", st.Blobs, cli.Size(st.BlobBytes))
	if st.Missing > 0 {
		row("", "%d referenced by records are missing", st.Missing)
	}
	row("events", "%d, %s, last %d", st.Events, cli.Size(st.EventBytes), st.Head.Seq)
	if st.OldestEvent > 0 {
		row("", "first %d, of %s", st.OldestEvent, time.UnixMicro(int64(st.OldestEvent)).UTC().Format(time.RFC3339))
	}
	if st.DroppedEvent > 0 {
		row("", "dropped through %d", st.DroppedEvent)
	}
	row("disk", "%s in %s; %s free", cli.Size(st.DiskBytes), o.HoldDir(), cli.Size(int64(st.FreeBytes)))
	switch {
	case st.Space != nil:
		row("health", "%v", st.Space)
	case o.Hold.MovedTo == nil && st.MovedTo != "":
		row("health", "the account was at %s; the next start announces that it is back", st.MovedTo)
	case o.Hold.MovedTo != nil && st.MovedTo == "":
		row("health", "ok; the next start announces that the account has moved")
	case o.Hold.MovedTo != nil:
		row("health", "ok; the move has been announced, and writes are refused")
	case st.Ahead > time.Minute:
		row("health", "the head is %s ahead of the system clock, so writes are refused: correct the clock, or run `tidings hold repair`", st.Ahead.Round(time.Second))
	default:
		row("health", "ok; `tidings hold verify` checks for damage")
	}
}

// printRunning prints what the server reports that has the repo open.
func printRunning(ctx context.Context, row func(string, string, ...any), o *config.Options, cfg repo.Config) error {
	row("server", "running, with the data folder %s; stop it to see more", o.Data)
	var status admin.Status
	err := admin.NewClient(o.Data).Call(ctx, "GET", "/v1/status", nil, &status)
	if errors.Is(err, admin.ErrNotRunning) {
		err = cli.NoSocket(o)
	}
	if err != nil {
		row("", "it does not answer: %v", err)
		return nil
	}
	health, err := cli.DecodeHealth(&status)
	if err != nil {
		return err
	}
	h := health.Hold
	if h == nil { // the data folder cannot be opened
		row("health", "%s", cli.WithReason(status.Status, strings.Join(status.Reasons, "; ")))
		return nil
	}
	if h.DID != cfg.DID {
		row("", "it serves another account, %s", h.DID)
		return nil
	}
	if h.Rev != "" {
		row("head", "%s", h.Rev)
	}
	row("health", "%s", cli.WithReason(h.Status, h.Reason))
	return printRelays(ctx, row, o, cfg.DID, h.Rev)
}
