package hold

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
)

const testHost = "hold.example.com"

// testHold is a hold over real HTTP with a real repository.
type testHold struct {
	testing.TB
	server   *Server
	repo     *repo.Repo
	url      string
	did      string
	password string
	access   string // the session that call presents; empty for none

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
	h := &testHold{TB: t, now: time.Now()}
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
	if h.password, err = SetPassword(cfg.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if h.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h.server)
	t.Cleanup(web.Close)
	h.repo, h.did, h.url = r, did, web.URL
	return h
}

// loggedIn is a hold with a session.
func loggedIn(t testing.TB) *testHold {
	t.Helper()
	h := newHold(t)
	h.access = h.token()
	return h
}

// do makes a request and gives the whole answer.
func (h *testHold) do(r *http.Request) (*http.Response, []byte) {
	h.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		h.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.Fatal(err)
	}
	return resp, body
}

func (h *testHold) request(verb, path, body string) *http.Request {
	h.Helper()
	r, err := http.NewRequest(verb, h.url+path, strings.NewReader(body))
	if err != nil {
		h.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if h.access != "" {
		r.Header.Set("Authorization", "Bearer "+h.access)
	}
	return r
}

// call makes an XRPC call whose answer is JSON. % in the body or the query
// stands for the hold's DID.
func (h *testHold) call(verb, method, body string) (int, map[string]any) {
	h.Helper()
	fill := strings.NewReplacer("%", h.did)
	resp, raw := h.do(h.request(verb, "/xrpc/"+fill.Replace(method), fill.Replace(body)))
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		h.Fatalf("%s %s: %d %.200q is not JSON: %v", verb, method, resp.StatusCode, raw, err)
	}
	return resp.StatusCode, answer
}

// want checks the status and, of an error, its name and a part of its message.
func (h *testHold) want(verb, method, body string, status int, name, message string) map[string]any {
	h.Helper()
	got, answer := h.call(verb, method, body)
	gotName, _ := answer["error"].(string)
	gotMessage, _ := answer["message"].(string)
	if got != status || gotName != name || !strings.Contains(gotMessage, strings.ReplaceAll(message, "%", h.did)) {
		h.Errorf("%s %s %.200s: got %d %s %q, want %d %s %q", verb, method, body, got, gotName, gotMessage, status, name, message)
	}
	return answer
}
