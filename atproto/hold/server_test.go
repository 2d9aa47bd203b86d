package hold

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc/xrpctest"
)

const testHost = "hold.example.com"

// testHold is a hold over real HTTP with a real repository.
type testHold struct {
	xrpctest.Client // of a session if Token is set
	server          *Server
	repo            *repo.Repo
	password        string

	mu   sync.Mutex
	now  time.Time
	log  bytes.Buffer
	more *sync.Cond // of the log
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

// until waits for what the log says.
func (h *testHold) until(text string) {
	h.Helper()
	patience := time.AfterFunc(20*time.Second, h.more.Broadcast)
	defer patience.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(h.log.String(), text); h.more.Wait() {
		if !time.Now().Before(end) {
			h.Fatalf("the log does not say %q:\n%s", text, h.log.String())
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

// loggedIn is a hold with a session.
func loggedIn(t testing.TB) *testHold {
	t.Helper()
	h := newHold(t)
	h.Token = h.token()
	return h
}
