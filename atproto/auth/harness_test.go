package auth

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/atproto/xrpc/xrpctest"
)

const (
	hostname = "hold.example.com"

	loginMethod    = "com.atproto.server.createSession"
	getSession     = "com.atproto.server.getSession"
	refreshSession = "com.atproto.server.refreshSession"
	deleteSession  = "com.atproto.server.deleteSession"
)

func newIdentity(t *testing.T) identity.Identity {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.New(hostname, key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// harness serves the session methods over HTTP.
type harness struct {
	xrpctest.Client
	sessions *Sessions
	password string

	mu  sync.Mutex
	now time.Time
	log bytes.Buffer
}

func newHarness(t *testing.T, change ...func(*SessionConfig)) *harness {
	t.Helper()
	h := &harness{Client: xrpctest.Client{TB: t}, now: time.Now()}
	cfg := SessionConfig{
		Identity: newIdentity(t), Login: true, PasswordFile: filepath.Join(t.TempDir(), "password"),
		Now: h.clock, Logger: slog.New(slog.NewTextHandler(h, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if h.password, err = SetPassword(cfg.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if h.sessions, err = OpenSessions(cfg); err != nil {
		t.Fatal(err)
	}
	view := func(tokens Tokens, err error) (any, error) {
		return map[string]any{"accessJwt": tokens.Access, "refreshJwt": tokens.Refresh}, err
	}
	s := &xrpc.Server{Logger: cfg.Logger, Methods: map[string]xrpc.Method{
		loginMethod: xrpc.Procedure(func(c *xrpc.Call) error { return h.sessions.AllowLogin(c) },
			func(c *xrpc.Call) (any, error) { return view(h.sessions.Create(c)) }),
		getSession: xrpc.Query(func(c *xrpc.Call) error { return h.sessions.Authorize(c) },
			func(*xrpc.Call) (any, error) { return map[string]any{}, nil }),
		refreshSession: xrpc.Procedure(xrpc.Public, func(c *xrpc.Call) (any, error) { return view(h.sessions.Refresh(c)) }),
		deleteSession:  xrpc.Procedure(xrpc.Public, func(c *xrpc.Call) (any, error) { return xrpc.Empty{}, h.sessions.Delete(c) }),
	}}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	h.URL, h.DID = web.URL, cfg.Identity.DID
	return h
}

func (h *harness) login(identifier, password string) (int, map[string]any) {
	h.Helper()
	return h.Call("POST", loginMethod, `{"identifier":"`+identifier+`","password":"`+password+`"}`)
}

func (h *harness) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *harness) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *harness) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(b)
}

func (h *harness) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}
