package hold

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

func TestRepoErrors(t *testing.T) {
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
		{fmt.Errorf("repo in /a/secret %w, restart: %w", repo.ErrStopped, errors.New("what")), 503, "ServiceUnavailable"},
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
