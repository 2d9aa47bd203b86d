package faultproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	applyWrites = "com.atproto.repo.applyWrites"
	body        = `{"results":[{"cid":"bafy"}]}`
)

// rig is a client, a proxy, and a target that responds to every call with body.
type rig struct {
	t *testing.T
	*Proxy
	target *httptest.Server
	url    string // of the proxy

	mu    sync.Mutex
	calls []Call
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t}
	r.target = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("RateLimit-Remaining", "7")
		io.WriteString(w, body)
	}))
	t.Cleanup(r.target.Close)
	var err error
	if r.Proxy, err = New(r.target.URL, r.observe); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r.Proxy)
	r.url = server.URL
	t.Cleanup(func() { r.End(); server.Close() })
	return r
}

func (r *rig) observe(c Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
}

// delivered returns the calls that the target has had.
func (r *rig) delivered() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// post calls a method, with a bearer token, and returns what a client sees.
func (r *rig) post(ctx context.Context, method, token string) (res *http.Response, content string, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/xrpc/"+method, strings.NewReader("{}"))
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	if res, err = http.DefaultClient.Do(q); err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	return res, string(read), err
}

// Each kind of fault, as a client sees it, and whether the target has had the call.
func TestFaults(t *testing.T) {
	t.Parallel()
	cut := func(res *http.Response, _ string, err error) bool { return res == nil && errors.Is(err, io.EOF) }
	truncated := func(res *http.Response, content string, err error) bool {
		return res.StatusCode == 200 && content == body[:len(body)/2] && errors.Is(err, io.ErrUnexpectedEOF)
	}
	page := func(status int) func(*http.Response, string, error) bool {
		return func(res *http.Response, content string, err error) bool {
			return err == nil && res.StatusCode == status && res.Header.Get("Content-Type") == "text/html" && content == htmlPage
		}
	}
	limited := func(name string, valid func(value string) bool) func(*http.Response, string, error) bool {
		return func(res *http.Response, content string, err error) bool {
			others := map[string]bool{"Retry-After": true, "RateLimit-Reset": true}
			delete(others, name)
			for other := range others {
				if res.Header.Get(other) != "" {
					return false
				}
			}
			return err == nil && res.StatusCode == 429 && content == rateLimited && valid(res.Header.Get(name))
		}
	}
	for name, c := range map[string]struct {
		fault Fault
		seen  func(res *http.Response, content string, err error) bool
	}{
		"cut before":       {Fault{Kind: Cut}, cut},
		"cut after":        {Fault{Kind: Cut, Delivered: true}, cut},
		"truncated before": {Fault{Kind: Truncate}, cut},
		"truncated after":  {Fault{Kind: Truncate, Delivered: true}, truncated},
		"502 before":       {Fault{Kind: BadGateway}, page(502)},
		"502 after":        {Fault{Kind: BadGateway, Delivered: true}, page(502)},
		"page before":      {Fault{Kind: HTML}, page(200)},
		"page after":       {Fault{Kind: HTML, Delivered: true}, page(200)},
		"429":              {Fault{Kind: RateLimit}, limited("", func(string) bool { return true })},
		"429, Retry-After": {Fault{Kind: RetryAfter, For: 3 * time.Second}, limited("Retry-After", func(v string) bool { return v == "3" })},
		"429, Reset": {Fault{Kind: RateLimitReset, For: time.Minute}, limited("RateLimit-Reset", func(v string) bool {
			return len(v) == 10 && v[0] != '0'
		})},
	} {
		r := newRig(t)
		r.Start(c.fault)
		if res, content, err := r.post(t.Context(), applyWrites, ""); !c.seen(res, content, err) {
			t.Errorf("%s: got %v, %q, %v", name, res, content, err)
		}
		if got := len(r.delivered()) == 1; got != c.fault.Delivered {
			t.Errorf("%s: delivered %v, want %v", name, got, c.fault.Delivered)
		}
		if hits := r.End(); hits != 1 {
			t.Errorf("%s: %d hits, want 1", name, hits)
		}
		res, content, err := r.post(t.Context(), applyWrites, "")
		if err != nil || res.StatusCode != 200 || content != body || res.Header.Get("RateLimit-Remaining") != "7" {
			t.Errorf("%s: after the fault, got %v, %q, %v", name, res, content, err)
		}
	}
}

// A response does not end before the client gives up, or the fault ends.
func TestEndless(t *testing.T) {
	t.Parallel()
	for _, delivered := range []bool{false, true} {
		r := newRig(t)
		r.Start(Fault{Kind: Endless, Delivered: delivered})
		res, err := http.Get(r.url + "/xrpc/" + applyWrites)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		begun := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, begun); err != nil || string(begun) != "     " || res.Header.Get("Content-Type") != jsonType {
			t.Errorf("got %q, %v", begun, err)
		}
		if got := len(r.delivered()) == 1; got != delivered {
			t.Errorf("delivered %v, want %v", got, delivered)
		}
		r.End()
		if rest, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) || strings.TrimSpace(string(rest)) != "" {
			t.Errorf("after the fault, got %q, %v", rest, err)
		}
		r.Start(Fault{Kind: Endless, Delivered: delivered})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, _, err := r.post(ctx, applyWrites, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
}

// roundTripper is a target without a network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A call is held before or after its delivery. That of a client which gave up while it
// was held is not delivered.
func TestDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, err := New("http://target.example", nil)
		if err != nil {
			t.Fatal(err)
		}
		begun, deliveries := time.Now(), 0
		var deliveredAfter time.Duration
		p.transport = roundTripper(func(*http.Request) (*http.Response, error) {
			deliveries++
			deliveredAfter = time.Since(begun)
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
		})
		call := func(ctx context.Context) {
			begun = time.Now()
			w := httptest.NewRecorder()
			defer func() { recover() }() // http.ErrAbortHandler
			p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/xrpc/"+applyWrites, strings.NewReader("{}")))
			if took := time.Since(begun); took != time.Minute || w.Body.String() != body {
				t.Errorf("got %q after %s, want the response after a minute", w.Body, took)
			}
		}
		p.Start(Fault{Kind: Delay, For: time.Minute})
		if call(t.Context()); deliveredAfter != time.Minute {
			t.Errorf("delivered after %s, want a minute", deliveredAfter)
		}
		p.Start(Fault{Kind: Delay, Delivered: true, For: time.Minute})
		if call(t.Context()); deliveredAfter != 0 {
			t.Errorf("delivered after %s, want at once", deliveredAfter)
		}
		p.Start(Fault{Kind: Delay, For: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if call(ctx); deliveries != 2 || time.Since(begun) != time.Second {
			t.Errorf("%d deliveries after %s, want 2: the client gave up after a second", deliveries, time.Since(begun))
		}
	})
}

// A fault may be about one method.
func TestMethod(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Start(Fault{Kind: Cut, Method: applyWrites})
	if _, content, err := r.post(t.Context(), "com.atproto.repo.getRecord", ""); err != nil || content != body {
		t.Errorf("another method: got %q, %v", content, err)
	}
	if _, _, err := r.post(t.Context(), applyWrites, ""); err == nil {
		t.Error("the method of the fault succeeds")
	}
	if hits := r.Start(Fault{Kind: HTML}); hits != 1 {
		t.Errorf("%d hits, want 1", hits)
	}
}

// An expired token is refused until another one is used; a revoked session cannot be
// refreshed either.
func TestTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const query, refresh = "com.atproto.repo.getRecord", "com.atproto.server.refreshSession"
	want := func(what, method, token string, refused bool) {
		t.Helper()
		res, content, err := r.post(t.Context(), method, token)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.StatusCode == 400 && strings.Contains(content, `"ExpiredToken"`); got != refused {
			t.Errorf("%s: refused %v, want %v (%s)", what, got, refused, content)
		}
	}
	want("a token", query, "access-1", false)
	r.ExpireToken()
	want("an expired token", query, "access-1", true)
	want("its refresh", refresh, "refresh-1", false)
	want("an expired token again", applyWrites, "access-1", true)
	want("the next token", applyWrites, "access-2", false)
	r.RevokeSession()
	want("a token of a revoked session", query, "access-2", true)
	want("the refresh of a revoked session", refresh, "refresh-2", true)
	want("the next session", query, "access-3", false)
	want("its refresh", refresh, "refresh-3", false)
	want("a call without a token", query, "", false)
}

// What a target that is not running has not had is not delivered; what it had before it
// closed the connection is, without a status.
func TestTargetDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.target.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, _, err := r.post(t.Context(), applyWrites, ""); err == nil {
		t.Error("a call succeeds without a response of the target")
	}
	calls := r.delivered()
	if len(calls) != 1 || calls[0].Method != applyWrites || calls[0].Status != 0 || string(calls[0].Input) != "{}" {
		t.Errorf("delivered %+v, want one call without a status", calls)
	}
	r.target.Close()
	if _, _, err := r.post(t.Context(), applyWrites, ""); err == nil {
		t.Error("a call succeeds without a target")
	}
	if calls = r.delivered(); len(calls) != 1 {
		t.Errorf("delivered %+v to a target that is not running", calls[1:])
	}
}
