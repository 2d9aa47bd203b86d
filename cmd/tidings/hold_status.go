package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware"
)

func holdStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status <config>",
		Short: "`hold status` shows the account: who it is, what it has, whether it can write",
		Long: "`hold status` shows the account's identity, its head, how many records each collection has, the event log, the disk, why writes\n" +
			"would be refused, and whether each relay has the last commit. Of a repository that a server has open it shows who it is and what\n" +
			"the server answers. `hold verify` looks for damage.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return holdStatus(cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
}

func holdStatus(out, log io.Writer, args []string) (err error) {
	o, path, err := holdOptions(args)
	if err != nil {
		return err
	}
	cfg, old, err := hold.Offline(holdConfig(o, log))
	if err != nil {
		return err
	}
	public, err := cfg.Key.PublicKey()
	if err != nil {
		return err
	}
	if _, err := os.Stat(o.Data); err != nil {
		return fmt.Errorf("%w; `tidings hold init` makes the account", err)
	}
	unlock, err := middleware.Lock(o.LockFile())
	running := errors.Is(err, middleware.ErrInUse)
	if err != nil && !running {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer func() { err = errors.Join(err, w.Flush()) }()
	say := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	say("account", "%s", cfg.DID)
	say("handle", "%s", cfg.Handle)
	if moved := o.Hold.MovedTo; moved != nil {
		say("moved", "to %s, by hold.moved_to", moved.Service)
	}
	say("key", "%s, in %s", public.DIDKey(), o.KeyFile())
	if len(old) > 0 {
		say("", "%s kept beside it", count(int64(len(old)), "older key"))
	}
	if running {
		return statusRunning(say, o, path, cfg)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	st, err := repo.ReadStatus(cfg)
	if err != nil {
		return err
	}
	statusStopped(say, o, st)
	return statusOfRelays(say, o, cfg.DID, st.Head.Rev)
}

// statusOfRelays asks the relays of the configuration whether they have the last
// commit.
func statusOfRelays(say func(string, string, ...any), o *config.Options, did, rev string) error {
	if o.Hold.MovedTo != nil || len(o.Hold.Relays) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askRelays)
	defer cancel()
	relays, err := crawl.Check(ctx, o.Hold.Relays, o.Hold.Hostname, did, rev)
	if err != nil {
		return err
	}
	for _, s := range relays {
		switch {
		case s.State != crawl.StateCurrent:
			say("relay", "%s: %s: %s", s.Relay, s.State, s.Reason)
		case s.Lag > 0:
			say("relay", "%s: does not have the last commit, of %s ago", s.Relay, s.Lag.Round(time.Second))
		default:
			say("relay", "%s: %s", s.Relay, s.State)
		}
	}
	return nil
}

// askRelays is how long relays may take to answer.
const askRelays = 20 * time.Second

func statusStopped(say func(string, string, ...any), o *config.Options, st repo.Status) {
	say("server", "stopped")
	say("head", "%s, %s ago", st.Head.Rev, -st.Ahead.Round(time.Second))
	say("", "commit %s", st.Head.Commit)
	total := int64(0)
	for i, c := range st.Collections {
		what := ""
		if i == 0 {
			what = "records"
		}
		say(what, "%d %s", c.Records, c.NSID)
		total += c.Records
	}
	say("", "%d in all", total)
	say("blobs", "%d, %s", st.Blobs, sizeText(st.BlobBytes))
	if st.Missing > 0 {
		say("", "%d that records refer to were never uploaded", st.Missing)
	}
	say("events", "%d, %s, up to %d", st.Events, sizeText(st.EventBytes), st.Head.Seq)
	if st.OldestEvent > 0 {
		say("", "since %s (%d)", time.UnixMicro(int64(st.OldestEvent)).UTC().Format(time.RFC3339), st.OldestEvent)
	}
	if st.LostEvents > 0 {
		say("", "dropped up to %d", st.LostEvents)
	}
	say("disk", "%s in %s; %s free", sizeText(st.DiskBytes), o.HoldDir(), sizeText(int64(st.FreeBytes)))
	switch {
	case st.Space != nil:
		say("health", "%v", st.Space)
	case o.Hold.MovedTo == nil && st.Place != "":
		say("health", "it was at %s; the next start tells that it is back", st.Place)
	case o.Hold.MovedTo != nil && st.Place == "":
		say("health", "good; the next start tells that it has moved")
	case o.Hold.MovedTo != nil:
		say("health", "good; it has told that it has moved, and takes no writes")
	case st.Ahead > time.Minute:
		say("health", "the head is dated %s ahead of this machine's clock, and nothing can be written: set the clock right, or mend it with `tidings hold repair`", st.Ahead.Round(time.Second))
	default:
		say("health", "good; `tidings hold verify` looks closer")
	}
}

// sizeText is a size that is read, not written into a configuration.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// askTimeout is how long a server on this machine may take.
const askTimeout = 3 * time.Second

// statusRunning shows what can be known while a server has the repository open.
func statusRunning(say func(string, string, ...any), o *config.Options, path string, cfg repo.Config) error {
	say("server", "running: it has the data folder %s; stop it to see all", o.Data)
	c, _, err := load([]string{path})
	if err != nil {
		return err
	}
	addr := o.HTTP.Addr
	if addr == "" {
		if tls := c.HTTP.TLS; tls.Certificate != "" || tls.LetsEncrypt.CacheFile != "" {
			say("", "it serves TLS; ask it at https://%s/xrpc/_health", o.Hold.Hostname)
			return nil
		}
		addr = c.HTTP.Addr
	}
	base, err := localURL(addr)
	if err != nil {
		say("", "it can't be asked at %q: %v", addr, err)
		return nil
	}
	var list struct { // which tells the head of an account that has moved, too
		Repos []struct{ DID, Head, Rev, Status string }
	}
	if err := ask(base+"/xrpc/com.atproto.sync.listRepos", &list); err != nil {
		say("", "it does not answer: %v", err)
		return nil
	}
	if len(list.Repos) != 1 || list.Repos[0].DID != cfg.DID {
		say("", "it has another account")
		return nil
	}
	say("head", "%s", list.Repos[0].Rev)
	say("", "commit %s", list.Repos[0].Head)
	if status := list.Repos[0].Status; status != "" {
		say("", "it takes no writes: the account is %s here", status)
	}
	if err := ask(base+"/xrpc/_health", &struct{}{}); err != nil {
		say("health", "%v", err)
		return nil
	}
	say("health", "good, it says")
	return statusOfRelays(say, o, cfg.DID, list.Repos[0].Rev)
}

// localURL is where a server that listens at addr is asked on this machine.
func localURL(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil:
		return "", err
	case port == "0" || port == "":
		return "", errors.New("the system chose its port")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

func ask(url string, into any) error {
	client := http.Client{Timeout: askTimeout}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	return json.Unmarshal(body, into)
}
