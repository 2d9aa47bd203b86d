package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/config"
)

// onlineTimeout bounds all calls of `config check --online`.
const onlineTimeout = time.Minute

// errOnline is what `config check --online` returns after it has printed problems.
var errOnline = errors.New("the network does not agree with the configuration, see above")

// findings prints what the network says, one topic a line.
type findings struct {
	io.Writer
	problems bool
}

func (f *findings) row(topic, format string, args ...any) {
	fmt.Fprintf(f, "  %s\t%s\n", topic, fmt.Sprintf(format, args...))
}

// problem prints an error, which may have several lines.
func (f *findings) problem(topic string, err error) {
	f.problems = true
	for line := range strings.Lines(err.Error()) {
		f.row(topic, "problem: %s", strings.TrimSuffix(line, "\n"))
		topic = ""
	}
}

// checkOnline asks the network about the account of a valid configuration.
func checkOnline(ctx context.Context, out io.Writer, o *config.Options) error {
	ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
	defer cancel()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	f := findings{Writer: w}
	fmt.Fprintln(w, "\nOnline:")
	switch {
	case o.Hold == nil:
		f.row("account", "none, so there is nothing to ask")
	case !exists(o.KeyFile()):
		f.row("account", "it does not exist yet")
	default:
		f.checkHold(ctx, o)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if f.problems {
		return errOnline
	}
	return nil
}

// checkHold compares what the network knows of a hold with its configuration.
func (f *findings) checkHold(ctx context.Context, o *config.Options) {
	did, _ := identity.DIDWeb(o.Hold.Hostname) // the hostname is validated
	f.row("account", "%s", did)
	cfg := holdConfig(o, io.Discard)
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
