package relay

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/relay/models"
	relaytest "github.com/bluesky-social/indigo/cmd/relay/testing"
)

// subscriber is a strict relay in this process, which logs to the default logger: only one
// test may use one at a time.
type subscriber struct {
	relay  *relaytest.SimpleRelay
	warned warnings
}

func newSubscriber(t *testing.T, of identity.Identity) subscriber {
	t.Helper()
	s := subscriber{warned: warnings{mu: new(sync.Mutex), list: new([]string)}}
	before := slog.Default()
	slog.SetDefault(slog.New(s.warned))
	t.Cleanup(func() { slog.SetDefault(before) })
	directory := identity.NewMockDirectory()
	directory.Insert(of)
	s.relay = relaytest.MustSimpleRelay(directory, t.TempDir(), false)
	return s
}

// knows reports whether the relay has this head of an account, which is active.
func (s subscriber) knows(did, rev, commit, data string) bool {
	ctx := context.Background()
	account, err := s.relay.Relay.GetAccount(ctx, syntax.DID(did))
	if err != nil || !account.IsActive() {
		return false
	}
	known, err := s.relay.Relay.GetAccountRepo(ctx, account.UID)
	return err == nil && known.Rev == rev && known.CommitCID == commit && known.CommitDataCID == data
}

// identityAt returns the identity in the did.json of a hold.
func identityAt(t *testing.T, client *http.Client, base string) identity.Identity {
	t.Helper()
	resp, err := client.Get(base + "/.well-known/did.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc identity.DIDDocument
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return identity.ParseIdentity(&doc)
}

// follower is a relay that subscribes to a program.
type follower struct {
	*testing.T
	subscriber
	hold *program
	host string // under which the relay knows the program
}

// newFollower subscribes through a reverse proxy without TLS, since a relay connects to a
// private address only without it.
func newFollower(p *program) *follower {
	p.Helper()
	origin, err := url.Parse("https://" + hostname)
	if err != nil {
		p.Fatal(err)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(origin) },
		Transport: patient{p.client.Transport},
		ErrorLog:  log.New(io.Discard, "", 0), // of connections that a kill has ended
	})
	p.Cleanup(server.Close)
	f := &follower{
		T: p.T, subscriber: newSubscriber(p.T, identityAt(p.T, p.client, "https://"+hostname)), hold: p,
		host: strings.Replace(strings.TrimPrefix(server.URL, "http://"), "127.0.0.1", "localhost", 1),
	}
	if err := f.relay.Relay.SubscribeToHost(p.Context(), f.host, true, true); err != nil {
		p.Fatal(err)
	}
	return f
}

// patient repeats requests for a while if the server does not run: a relay gives up
// after few attempts, which are close together.
type patient struct{ http.RoundTripper }

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := p.RoundTripper.RoundTrip(r)
		if err == nil || r.Context().Err() != nil || time.Now().After(end) {
			return resp, err
		}
	}
}

// synced waits until the relay has the commit that getRepo returns, and has not given up
// the host.
func (f *follower) synced() {
	f.Helper()
	eventually(f.T, "the relay has the head", func() bool {
		commit, id := f.hold.head()
		return f.knows(did, commit.Rev, id.String(), commit.Data.String())
	})
	host, err := f.relay.Relay.GetHost(f.Context(), f.host)
	if err != nil {
		f.Fatal(err)
	}
	if host.Status != models.HostStatusActive {
		f.Errorf("the relay's host is %s", host.Status)
	}
}

// followed checks that the relay has warned only of what a restart explains.
func (f *follower) followed() {
	f.Helper()
	for _, line := range f.warned.take() {
		if !afterRestart(line) {
			f.Errorf("warning of the relay: %s", line)
		}
	}
}

// afterRestart reports whether a restart of the hold explains a warning of the relay.
func afterRestart(line string) bool {
	for _, prefix := range []string{
		"host connection failed", "dialing failed",
		"dropping commit with old rev", // its cursor is behind its commits
	} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// warnings collects the warnings of the relay.
type warnings struct {
	slog.Handler
	mu   *sync.Mutex
	list *[]string
}

func (c warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (c warnings) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	*c.list = append(*c.list, line)
	return nil
}

func (c warnings) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c warnings) WithGroup(string) slog.Handler      { return c }

func (c warnings) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := *c.list
	*c.list = nil
	return list
}
