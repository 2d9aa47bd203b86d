package hold

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc/xrpctest"
)

const testHost = "hold.example.com"

// testHold is a hold over real HTTP with a real repo.
type testHold struct {
	xrpctest.Client // of a session if Token is set
	server          *Server
	repo            *repo.Repo
	password        string

	mu   sync.Mutex
	now  time.Time
	log  bytes.Buffer
	more *sync.Cond // signals that log has grown
}

func (h *testHold) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *testHold) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *testHold) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.more.Broadcast()
	return h.log.Write(b)
}

// waitForLog waits until the log has text.
func (h *testHold) waitForLog(text string) {
	h.Helper()
	wake := time.AfterFunc(20*time.Second, h.more.Broadcast)
	defer wake.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(h.log.String(), text); h.more.Wait() {
		if !time.Now().Before(end) {
			h.Fatalf("the log does not have %q:\n%s", text, h.log.String())
		}
	}
}

func (h *testHold) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

func newHold(t testing.TB, change ...func(*Config)) *testHold {
	t.Helper()
	h := &testHold{Client: xrpctest.Client{TB: t}, now: time.Now()}
	h.more = sync.NewCond(&h.mu)
	dir := t.TempDir()
	hold := RepoConfig{Dir: filepath.Join(dir, "hold"), KeyFile: filepath.Join(dir, "hold.key"), Hostname: testHost, Reserve: 1}
	did, err := Init(InitConfig{Dir: hold.Dir, KeyFile: hold.KeyFile, Hostname: testHost, Reserve: 1, DisplayName: "Test"})
	if err != nil {
		t.Fatal(err)
	}
	r, id, err := OpenRepo(hold)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cfg := Config{
		Identity: id, Repo: r, Login: true, PasswordFile: filepath.Join(dir, "hold.password"),
		Version: "test", Now: h.clock, Logger: slog.New(slog.NewTextHandler(h, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Network == nil {
		cfg.Network = newNetwork(t, cfg)
	}
	if h.password, err = auth.SetPassword(cfg.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if h.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h.server)
	t.Cleanup(web.Close)
	h.repo, h.DID, h.URL = r, did, web.URL
	return h
}

// loggedIn returns a hold and calls it in a session.
func loggedIn(t testing.TB) *testHold {
	t.Helper()
	h := newHold(t)
	h.Token = h.token()
	return h
}

// token returns an access token of a new session.
func (h *testHold) token() string {
	h.Helper()
	status, body := h.login(h.DID, h.password)
	if status != 200 {
		h.Fatalf("login: %d %v", status, body)
	}
	return body["accessJwt"].(string)
}

// fill creates n records k00, k01, … of size bytes each.
func (h *testHold) fill(n, size int) {
	h.Helper()
	for i := range n {
		record, err := lexicon.Encode(map[string]any{"$type": coll, "n": i, "text": strings.Repeat("x", size)})
		if err != nil {
			h.Fatal(err)
		}
		_, err = h.repo.Apply(h.Context(), []repo.Write{{Action: repo.Create, Collection: coll, RKey: fmt.Sprintf("k%02d", i), Record: record}}, nil)
		if err != nil {
			h.Fatal(err)
		}
	}
}

// publicKey returns the key in did.json.
func (h *testHold) publicKey() atcrypto.PublicKey {
	h.Helper()
	doc := h.didDoc()
	key := doc["verificationMethod"].([]any)[0].(map[string]any)
	if key["id"] != h.DID+"#atproto" || key["type"] != "Multikey" || key["controller"] != h.DID {
		h.Errorf("got %v", key)
	}
	public, err := atcrypto.ParsePublicMultibase(key["publicKeyMultibase"].(string))
	if err != nil {
		h.Fatal(err)
	}
	return public
}

func jsonOf(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func newNetwork(t testing.TB, cfg Config, relays ...string) *Network {
	t.Helper()
	n, err := NewNetwork(NetworkConfig{Identity: cfg.Identity, Repo: cfg.Repo, Relays: relays, Metrics: NewMetrics(), Now: cfg.Now, Logger: cfg.Logger})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
