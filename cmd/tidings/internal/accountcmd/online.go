package accountcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/holdcmd"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/terminal"
)

// onlineTimeout bounds all calls of `config check --online`.
const onlineTimeout = time.Minute

// errOnline is what `config check --online` returns after it has printed problems.
var errOnline = errors.New("the online check found problems, see above")

// findings prints what the network says, one topic a line.
type findings struct {
	cli.Table
	problems bool
}

func (f *findings) row(topic, format string, args ...any) { f.Row("  "+topic, format, args...) }

// problem prints an error, which may have several lines.
func (f *findings) problem(topic string, err error) {
	f.problems = true
	for line := range strings.Lines(err.Error()) {
		f.row(topic, "problem: %s", strings.TrimSuffix(line, "\n"))
		topic = ""
	}
}

// CheckOnline asks the network about the account of a valid configuration.
func CheckOnline(ctx context.Context, out, log io.Writer, o *config.Options) error {
	ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
	defer cancel()
	bar := terminal.Wait(log, "asking the network")
	defer bar.End()
	log = bar.Writer(log)
	w := cli.NewTable(out)
	f := findings{Table: w}
	fmt.Fprintln(w, "\nOnline:")
	switch {
	case o.Account != nil:
		f.checkAccount(ctx, o, log)
	case o.Remote != nil:
		f.checkRemote(ctx, o, log)
	case o.Hold == nil:
		f.row("account", "none, so there is nothing to ask")
	case !cli.Exists(o.KeyFile()):
		f.row("account", "it does not exist yet")
	default:
		f.checkHold(ctx, o)
	}
	bar.End()
	if err := w.Flush(); err != nil {
		return err
	}
	if f.problems {
		return errOnline
	}
	return nil
}

// checkAccount resolves the account of a PDS and logs in, unless there is a session.
func (f *findings) checkAccount(ctx context.Context, o *config.Options, log io.Writer) {
	s, err := openSession(o, log)
	if err != nil {
		f.problem("account", err)
		return
	}
	defer s.close()
	if err := s.Resolve(ctx); err != nil {
		f.problem("account", err)
		return
	}
	printIdentity(f.row, s.Status())
	f.row("document", "the DID document names this service")
	if s.running {
		f.row("session", "used by the running registry, see `tidings account status`")
		return
	}
	inactive, err := s.CheckSession(ctx)
	switch {
	case err != nil:
		f.problem("session", err)
	case inactive != "":
		f.problem("session", fmt.Errorf("the account is %s at %s, so nothing can be written", inactive, o.Account.Service))
	case s.kept:
		f.row("session", "logged in; kept in %s", o.AccountFile())
	default:
		f.row("session", "logged in; not kept, because there is no data folder yet")
	}
}

// checkRemote resolves the hold that pushes are reported to, and the sender. It does not
// call the hold.
func (f *findings) checkRemote(ctx context.Context, o *config.Options, log io.Writer) {
	hold := resolveHold(ctx, o.Remote)
	f.row("hold", "%s", hold.DID)
	if hold.Problem != "" {
		f.problem("endpoint", errors.New(hold.Problem))
	} else {
		f.row("endpoint", "%s, by the DID document", hold.Endpoint)
	}
	if o.Remote.Account != nil {
		f.checkSender(ctx, o, log)
		return
	}
	did, _ := identity.DIDWeb(o.Remote.Hostname) // the hostname is validated
	f.row("sender", "%s", did)
	key, err := identity.LoadKey(o.RemoteKeyFile())
	if err != nil {
		f.problem("key", remoteKeyProblem(err))
		return
	}
	if err := checkSenderDocument(ctx, did, key); err != nil {
		f.problem("document", err)
		return
	}
	f.row("document", "the DID document has the key; whether the hold accepts it shows with the first push")
}

// checkSender resolves the account that sends the calls.
func (f *findings) checkSender(ctx context.Context, o *config.Options, log io.Writer) {
	r, err := reportSender(ctx, o, log)
	switch {
	case err != nil:
		f.problem("sender", err)
	case r.Problem != "":
		f.problem("sender", errors.New(r.Problem))
	default:
		f.row("sender", "%s", r.DID)
	}
}

// checkSenderDocument compares the DID document that the network has with the key.
func checkSenderDocument(ctx context.Context, did string, key atcrypto.PrivateKey) error {
	source, err := identity.NewSource(did, "")
	if err != nil {
		return err
	}
	document, err := source.Fetch(ctx)
	if err != nil {
		return fmt.Errorf("the registry has to serve it, and the hold reads it: %w", err)
	}
	public, err := key.PublicKey()
	if err != nil {
		return err
	}
	if document.ID != did || document.SigningKey() != public.Multibase() {
		return fmt.Errorf("%s has another DID or key", source.URL)
	}
	return nil
}

// checkHold compares what the network knows of a hold with its configuration.
func (f *findings) checkHold(ctx context.Context, o *config.Options) {
	did, _ := identity.DIDWeb(o.Hold.Hostname) // the hostname is validated
	f.row("account", "%s", did)
	cfg := holdcmd.RepoConfig(o, io.Discard)
	if moved := o.Hold.MovedTo; moved != nil {
		cfg.MovedTo = &identity.MovedTo{Service: moved.Service, Key: identity.Multibase(moved.Key)}
	}
	if err := hold.CheckDocument(ctx, cfg); err != nil {
		f.problem("document", err)
	} else {
		f.row("document", "the DID document agrees with the configuration")
	}
	if o.Hold.MovedTo != nil || len(o.Hold.Relays) == 0 {
		return
	}
	relays, err := crawl.Check(ctx, o.Hold.Relays, o.Hold.Hostname, did, "")
	if err != nil {
		f.problem("relays", err)
	}
	for _, s := range relays {
		if s.State == crawl.StateCurrent {
			f.row("relay", "%s knows the account", s.Relay)
		} else {
			f.problem("relay", fmt.Errorf("%s: %s: %s", s.Relay, s.State, s.Reason))
		}
	}
}
