package pds

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// What the reference PDS and what is between it and us answers, and what it means.
// The texts are the reference's.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	answer := func(status int, name, message string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, name, message) }
	}
	raw := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   Outcome
	}{
		"existing key":     {answer(500, "InternalServerError", "Internal Server Error"), Unknown},
		"proxy":            {raw(502, "text/html", "<html>"), Unknown},
		"proxy's 404":      {raw(404, "text/html", "<html>"), Unknown},
		"overloaded":       {answer(503, "NotEnoughResources", ""), Unknown},
		"too large":        {answer(413, "PayloadTooLargeError", "request entity too large"), TooLarge},
		"limited":          {answer(429, "RateLimitExceeded", "Rate Limit Exceeded"), Limited},
		"limited by proxy": {raw(429, "text/plain", "slow down"), Limited},
		"too many writes":  {answer(400, "InvalidRequest", "Too many writes. Max: 200"), Refused},
		"swap":             {answer(400, "InvalidSwap", "Commit was at bafy"), Refused},
		"deactivated":      {answer(401, "AccountDeactivated", "Account is deactivated"), Suspended},
		"taken down":       {answer(401, "AccountTakedown", "Account has been taken down"), Suspended},
		"moved away":       {answer(403, "AccountNotFound", "Account not found"), Suspended},
		"html with 200":    {raw(200, "text/html", "<html>"), Unknown},
		"garbage with 200": {raw(200, "application/json", "{"), Unknown},
		"no results":       {raw(200, "application/json", `{"commit":{},"results":[]}`), Unknown},
		"64 MiB":           {raw(200, "application/json", strings.Repeat(" ", 64<<20)), Unknown},
	} {
		r := newRig(t)
		r.server.on(applyWrites, c.answer)
		var e *Error
		if err := r.apply(2); !errors.As(err, &e) || e.Outcome != c.want {
			t.Errorf("%s: got %v, outcome %v, want %v", name, err, e, c.want)
		}
		if n := r.server.called(applyWrites); n != 1 {
			t.Errorf("%s: %d calls, want 1", name, n)
		}
	}
}

// The write that a PDS complains about is named.
func TestRefusedWrite(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.on(applyWrites, func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 400, "InvalidRequest", `Invalid app.bsky.feed.post record: grapheme too big (maximum 300, got 301) at $.writes[1].record.text`)
	})
	var at *repo.WriteError
	if err := r.apply(3); !errors.As(err, &at) || at.Index != 1 || !strings.Contains(err.Error(), "grapheme too big") {
		t.Errorf("got %v", err)
	}
	if err := r.apply(1); !errors.As(err, &at) || at.Index != 0 {
		t.Errorf("a single write: got %v", err)
	}
}

// A PDS that takes less than a megabyte is asked for more once.
func TestSmallerInputLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.on(applyWrites, func(w http.ResponseWriter, q *http.Request) {
		if q.ContentLength > 2000 {
			refuse(w, 413, "PayloadTooLargeError", "request entity too large")
			return
		}
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		r.server.apply(w, q)
	})
	var e *Error
	for range 3 {
		if err := r.apply(50); !errors.As(err, &e) || e.Outcome != TooLarge {
			t.Errorf("got %v", err)
		}
	}
	if n := r.server.called(applyWrites); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	if err := r.apply(5); err != nil {
		t.Error(err)
	}
}

// No redirect shows another host the password, a token or a record.
func TestRedirects(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	seen := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { seen <- q.URL.Path }))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 307, 308} {
		for _, method := range []string{createSession, applyWrites} {
			r.server.on(method, func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, other.URL+q.URL.Path, status) })
			if err := r.apply(1); err == nil || !strings.Contains(err.Error(), "redirects to another host") {
				t.Errorf("%s, status %d: got %v", method, status, err)
			}
			r.server.on(method, nil)
			r.apply(1)
		}
		os.Remove(r.cfg.File)
		r.reopen()
	}
	if len(seen) > 0 {
		t.Errorf("the other host was asked for %s", <-seen)
	}
}

// An answer that never ends, or never begins, ends with the caller's context.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.on(applyWrites, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for q.Context().Err() == nil {
			w.Write([]byte(" "))
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var e *Error
	if _, err := r.Apply(ctx, layers(1), nil, Normal); !errors.As(err, &e) || e.Outcome != Unknown {
		t.Errorf("got %v", err)
	}
}

func TestRepoHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		service, document string
		want              string // "": refused
	}{
		{"https://pds.example.com", "https://pds.example.com", "https://pds.example.com"},
		{"https://pds.example.com", "https://PDS.example.com:443/", "https://pds.example.com"},
		{"https://pds.example.com", "https://other.example.com", ""},
		{"https://pds.example.com", "http://pds.example.com", ""},
		{"https://pds.example.com", "http://10.0.0.1", ""},
		{"https://pds.example.com", "https://pds.example.com/path", ""},
		{"https://pds.example.com", "", ""},
		{"https://bsky.social", "https://morel.us-east.host.bsky.network", "https://morel.us-east.host.bsky.network"},
		{"https://bsky.social", "https://host.bsky.network.example.com", ""},
		{"https://bsky.social", "http://morel.us-east.host.bsky.network", ""},
		{"http://localhost:2583", "http://localhost:2583", "http://localhost:2583"},
	} {
		a, err := Open(Config{Service: c.service, Identifier: alice, File: t.TempDir() + "/account.json"})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if u, err := a.repoHost(alice, c.document); err == nil {
			got = u.String()
		}
		if got != c.want {
			t.Errorf("service %s, document %s: got %q, want %q", c.service, c.document, got, c.want)
		}
	}
	for _, service := range []string{"", "bsky.social", "ftp://example.com", "https://user:secret@example.com", "https://example.com/path", "https://example.com?q"} {
		if _, err := Open(Config{Service: service, Identifier: alice, File: t.TempDir() + "/account.json"}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("service %q: got %v", service, err)
		}
	}
}

// An account that is not where the operator says is not logged in to.
func TestResolve(t *testing.T) {
	t.Parallel()
	document := func(id, handle, host string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, map[string]any{"id": id, "alsoKnownAs": []string{"at://" + handle},
				"service": []map[string]string{{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": host}}})
		}
	}
	for name, c := range map[string]struct {
		answers func(*rig)
		want    string // in the error; "": none
	}{
		"as it should be": {func(*rig) {}, ""},
		"another handle":  {func(r *rig) { r.server.on("/"+alice, document(alice, "bob.test", r.server.URL)) }, "does not have that handle"},
		"another account": {func(r *rig) { r.server.on("/"+alice, document("did:plc:other", "alice.test", r.server.URL)) }, "is one of did:plc:other"},
		"another host":    {func(r *rig) { r.server.on("/"+alice, document(alice, "alice.test", "https://pds.example.com")) }, "set service to the PDS"},
		"a host inside":   {func(r *rig) { r.server.on("/"+alice, document(alice, "alice.test", "http://10.0.0.1")) }, "set service to the PDS"},
		"no host":         {func(r *rig) { r.server.on("/"+alice, document(alice, "alice.test", "")) }, "names no PDS"},
		"unknown handle": {func(r *rig) {
			r.server.on("com.atproto.identity.resolveHandle", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, 400, "InvalidRequest", "Unable to resolve handle")
			})
		}, "Unable to resolve handle"},
		"no DID": {func(r *rig) {
			r.server.on("com.atproto.identity.resolveHandle", func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, map[string]string{"did": "did:web:10.0.0.1"})
			})
		}, "did:web:10.0.0.1"},
	} {
		r := newRig(t)
		c.answers(r)
		err := r.apply(1)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if n := r.server.called(createSession); n > 0 && c.want != "" {
			t.Errorf("%s: logged in", name)
		}
	}
}

// No error and no log line holds the password or a token.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var texts []string
	try := func() { texts = append(texts, errorText(r.apply(1))) }
	for _, method := range []string{createSession, refreshSession, applyWrites} {
		for _, h := range []http.HandlerFunc{
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) },
			func(w http.ResponseWriter, _ *http.Request) { refuse(w, 400, "InvalidRequest", "no") },
			func(w http.ResponseWriter, _ *http.Request) { refuse(w, 401, "AuthenticationRequired", "no") },
			func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
		} {
			r.server.on(method, h)
			try()
			r.server.on(method, nil)
			try()
			r.server.revoke("access-")
			r.now = r.now.Add(24 * time.Hour)
			r.reopen()
		}
	}
	all := strings.Join(texts, "\n") + r.log.String()
	if len(all) < 600 {
		t.Fatalf("too few errors: %s", all)
	}
	for _, secret := range []string{password, "access-", "refresh-"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in an error or the log: %s", secret, all)
		}
	}
	if info, err := os.Stat(r.cfg.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the session's file: %v, %v", info.Mode(), err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

type answering string

func (body answering) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
}

// A service elsewhere cannot make this program read a DID document from its own machine.
func TestHandleOfThisMachine(t *testing.T) {
	t.Parallel()
	for service, refused := range map[string]bool{"https://pds.example.com": true, "http://localhost:2583": false} {
		fetched := errors.New("the document is fetched")
		a, err := Open(Config{
			Service: service, Identifier: "alice.test", File: filepath.Join(t.TempDir(), "account.json"),
			Document: func(context.Context, string) (*identity.Document, error) { return nil, fetched },
		})
		if err != nil {
			t.Fatal(err)
		}
		a.http.Transport = answering(`{"did":"did:web:localhost%3A6379"}`)
		err = a.Resolve(t.Context())
		if refused && (errors.Is(err, fetched) || err == nil || !strings.Contains(err.Error(), "did:web:localhost%3A6379, which is on this machine")) {
			t.Errorf("%s: got %v", service, err)
		}
		if !refused && !errors.Is(err, fetched) {
			t.Errorf("%s: got %v", service, err)
		}
	}
}
