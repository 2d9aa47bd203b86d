package hold

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/private"
)

func TestRepositoryErrors(t *testing.T) {
	t.Parallel()
	const path = "com.example.thing/k"
	for _, c := range []struct {
		err    error
		status int
		name   string
	}{
		{fmt.Errorf("apply: %w", repo.ErrNoSpace), 507, "InsufficientStorage"},
		{repo.ErrClock, 503, "ClockBehind"},
		{repo.ErrClosed, 503, "ServiceUnavailable"},
		{fmt.Errorf("%w: %w", repo.ErrUnknownOutcome, context.Canceled), 500, "UnknownOutcome"},
		{fmt.Errorf("repository in /a/secret %w, restart: %w", repo.ErrStopped, errors.New("what")), 503, "ServiceUnavailable"},
		{fmt.Errorf("store sessions: %w", &fs.PathError{Op: "open", Path: "/a/secret", Err: syscall.EROFS}), 503, "ServiceUnavailable"},
		{context.DeadlineExceeded, 503, "ServiceUnavailable"},
		{repo.ErrTooLarge, 400, "InvalidRequest"},
		{&repo.WriteError{Path: path, Err: repo.ErrTooLarge}, 413, "PayloadTooLargeError"},
		{&repo.WriteError{Path: path, Err: repo.ErrExists}, 400, "RecordAlreadyExists"},
		{&repo.WriteError{Path: path, Err: repo.ErrNotFound}, 400, "RecordNotFound"},
		{&repo.WriteError{Path: path, Err: repo.ErrInvalidPath}, 400, "InvalidRequest"},
		{&repo.WriteError{Path: path, Err: errors.New("a secret")}, 500, "InternalServerError"},
		{errors.New("a secret"), 500, "InternalServerError"},
	} {
		const method = "com.atproto.sync.listRepos"
		failing := &xrpc.Server{Errors: repoError, Logger: slog.New(slog.DiscardHandler), Methods: map[string]xrpc.Method{
			method: xrpc.Query(xrpc.Public, func(*xrpc.Call) (any, error) { return nil, c.err }),
		}}
		w := httptest.NewRecorder()
		failing.ServeHTTP(w, httptest.NewRequest("GET", "/xrpc/"+method, nil))
		if body := w.Body.String(); w.Code != c.status || !strings.Contains(body, `"error":"`+c.name+`"`) || strings.Contains(body, "secret") {
			t.Errorf("%v: got %d %s, want %d %s", c.err, w.Code, body, c.status, c.name)
		}
	}
}

func TestDiskReserve(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	full := cfg.repo()
	full.Reserve = 1 << 62
	r, id, err := OpenRepo(full)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	h := newHold(t, func(c *Config) { c.Repo, c.Identity = r, id })
	if h.Token = h.token(); h.Token == "" {
		t.Fatal("no session")
	}
	h.Want("POST", create, `{"repo":"%","collection":"`+coll+`","record":{}}`, 507, "InsufficientStorage", "too little free disk space")
	h.Want("GET", get+"?repo=%&collection="+lexicon.NSIDProfile+"&rkey=self", "", 200, "", "")
	if status, _ := h.Call("GET", "_health", ""); status != 503 {
		t.Errorf("_health: got %d, want 503", status)
	}
}

// token is an access token of a new session.
func (h *testHold) token() string {
	h.Helper()
	status, body := h.login(h.DID, h.password)
	if status != 200 {
		h.Fatalf("login: %d %v", status, body)
	}
	return body["accessJwt"].(string)
}

func TestMethodsHaveSchemas(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	for nsid, m := range h.server.rpc.Methods {
		if _, err := lexicon.Params(nsid, nil); err != nil && strings.Contains(err.Error(), "no schema") {
			t.Error(err)
		}
		if lexicon.HasInput(nsid) && m.Verb != http.MethodPost {
			t.Errorf("%s has a body but is a %s", nsid, m.Verb)
		}
	}
}

// No body makes an error of ours, and none that is refused moves the head.
func FuzzApplyWrites(f *testing.F) {
	h := loggedIn(f)
	fill := strings.NewReplacer("%", h.DID)
	for _, seed := range []string{
		writes(`create k {"n":1}`), writes(`update k {}`, `delete k`), writes(`create - {"a":{"$bytes":"AQ"}}`),
		with(writes(`create k {}`), `"validate":false`), with(writes(), `"swapCommit":"x"`), `{"repo":"%","writes":[{}]}`, `[]`, ``,
	} {
		f.Add([]byte(fill.Replace(seed)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := h.repo.Head()
		r := httptest.NewRequest("POST", "/xrpc/"+apply, strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+h.Token)
		w := httptest.NewRecorder()
		h.server.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%s: got %d %s", body, w.Code, w.Body)
		}
		if moved := h.repo.Head() != before; moved != (w.Code == 200) {
			t.Fatalf("%s: got %d %s, head moved: %t", body, w.Code, w.Body, moved)
		}
	})
}

// Every file a hold makes is for its owner alone.
func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	if _, err := auth.SetPassword(filepath.Join(filepath.Dir(cfg.KeyFile), "hold.password")); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.KeyFile), "hold.*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("got %v, %v", files, err)
	}
	for _, file := range files {
		if _, err := private.ReadFile(file); err != nil {
			t.Error(err)
		}
	}
}
