package middleware

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	gorilla "github.com/gorilla/handlers"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// respondWith returns a handler that responds with a text.
func respondWith(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, s) })
}

// minimalConfig returns a configuration with a prefix and without an access log.
func minimalConfig(prefix string) *configuration.Configuration {
	config := &configuration.Configuration{}
	config.Log.AccessLog.Disabled = true
	config.HTTP.Prefix = prefix
	return config
}

func get(t *testing.T, handler http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w
}

// Errors of our own routes, and of other paths where a hold's account is looked up,
// are readable by browsers.
func TestErrorsHaveCORSHeader(t *testing.T) {
	t.Parallel()
	crash := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("early") })
	for _, c := range []struct {
		mount      string
		path, want string
	}{
		{"/.well-known/did.json", "/.well-known/oauth-protected-resource", "*"},
		{"/.well-known/did.json", "/.well-known/oauth-authorization-server", "*"},
		{"/.well-known/did.json", "/.well-known/did.json", "*"},
		{"/.well-known/did.json", "/v2/", ""},
		{"/tidings/", "/.well-known/oauth-protected-resource", ""}, // there is no hold
	} {
		h, err := start(minimalConfig(""), parts{recorder: &fakeRecorder{}, mounts: []mount{{c.mount, crash}}})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close(context.Background())
		got := get(t, h.Wrap(http.NotFoundHandler()), c.path)
		if got.Code < 400 || got.Header().Get("Access-Control-Allow-Origin") != c.want {
			t.Errorf("%s, with mount %s: got %d and %v", c.path, c.mount, got.Code, got.Header())
		}
	}
}

// Mounts serve their own paths, and the registry's app all others.
func TestMounts(t *testing.T) {
	t.Parallel()
	mounts := []mount{{"/xrpc/", respondWith("xrpc")}, {"/tidings/", respondWith("tidings")}, {"/.well-known/did.json", respondWith("did")}}
	for _, prefix := range []string{"", "/tidings/"} {
		h, err := start(minimalConfig(prefix), parts{recorder: &fakeRecorder{}, mounts: mounts})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close(context.Background())
		wrapped := h.Wrap(respondWith("registry"))
		for path, want := range map[string]string{
			"/": "registry", "/v2/": "registry", "/v2/xrpc/manifests/v1": "registry",
			"/xrpc/_health": "xrpc", "/xrpc": "registry", "/xrpcs": "registry",
			"/tidings/api/v1/health":    "tidings",
			"/.well-known/did.json":     "did",
			"/.well-known/did.json/x":   "registry",
			"/.well-known/acme":         "registry",
			"/tidings/v2/app/tags/list": map[string]string{"": "tidings", "/tidings/": "registry"}[prefix],
		} {
			if got := get(t, wrapped, path).Body.String(); got != want {
				t.Errorf("prefix %q: %s is served by %s, want %s", prefix, path, got, want)
			}
		}
	}
}

// A panic before the response is a 500; a later one closes the connection.
func TestRoutePanics(t *testing.T) {
	t.Parallel()
	metrics := NewMetrics()
	early := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("early") })
	late := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "half"); panic("late") })
	copied := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, strings.NewReader("half"))
		panic("late")
	})
	h, err := start(minimalConfig(""), parts{recorder: &fakeRecorder{}, metrics: metrics, mounts: []mount{{"/early", early}, {"/late", late}, {"/copied", copied}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	server := httptest.NewServer(h.Wrap(http.NotFoundHandler()))
	defer server.Close()
	// Without keep-alive: a client repeats a request if a reused connection is closed.
	r := &testRegistry{t: t, url: server.URL, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	got := r.do("GET", "/early", nil)
	if got.status != 500 || !strings.Contains(string(got.body), `"error":"InternalServerError"`) || strings.Contains(string(got.body), "early") {
		t.Errorf("early: %d %s", got.status, got.body)
	}
	for _, path := range []string{"/late", "/copied"} {
		if got, err := r.try(t.Context(), "GET", path, nil); err == nil {
			t.Errorf("%s: the response looks complete after a panic: %d %s", path, got.status, got.body)
		}
	}
	if n := testutil.ToFloat64(metrics.panicked); n != 3 {
		t.Errorf("%v panics counted, want 3", n)
	}
}

// Requests for our own routes are limited in number, in total and for each client.
// Requests of the registry are not affected.
func TestRouteLimits(t *testing.T) {
	t.Parallel()
	metrics := NewMetrics()
	entered, release := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release })
	body := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var large *http.MaxBytesError
		if _, err := io.Copy(io.Discard, r.Body); errors.As(err, &large) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	h, err := start(minimalConfig(""), parts{recorder: &fakeRecorder{}, metrics: metrics, mounts: []mount{{"/slow", slow}, {"/body", body}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	wrapped := h.Wrap(respondWith("registry"))

	for size, want := range map[int64]int{maxBody: 200, maxBody + 1: 413} {
		w := httptest.NewRecorder()
		wrapped.ServeHTTP(w, httptest.NewRequest("POST", "/body", io.LimitReader(zeros{}, size)))
		if w.Code != want {
			t.Errorf("a body of %d bytes: status %d, want %d", size, w.Code, want)
		}
	}

	from := func(client int, path string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = fmt.Sprintf("[2001:db8:0:%d::%d]:99", client, rand.IntN(1000))
		wrapped.ServeHTTP(w, r)
		return w
	}
	done := make(chan struct{})
	for i := range maxRequests {
		go func() { from(i/maxClientRequests, "/slow"); done <- struct{}{} }()
		<-entered
		if i+1 != maxClientRequests {
			continue
		}
		if w := from(0, "/body"); w.Code != 503 {
			t.Errorf("above the limit of a client: %d %s", w.Code, w.Body)
		}
		if w := from(1, "/body"); w.Code != 200 {
			t.Errorf("another client: %d %s", w.Code, w.Body)
		}
	}
	if w := get(t, wrapped, "/slow"); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"error":"Unavailable"`) {
		t.Errorf("above the limit in total: %d %s", w.Code, w.Body)
	}
	if w := get(t, wrapped, "/v2/app/manifests/v1"); w.Body.String() != "registry" {
		t.Errorf("a request of the registry: %d %s", w.Code, w.Body)
	}
	if n := testutil.ToFloat64(metrics.busy); n != 2 {
		t.Errorf("%v refused requests counted, want 2", n)
	}
	close(release)
	for range maxRequests {
		<-done
	}
	go func() { <-entered }()
	if w := get(t, wrapped, "/slow"); w.Code != 200 {
		t.Errorf("after all requests have ended: %d", w.Code)
	}
}

// Clients that do not read their responses occupy only their own slots, and only
// until writeTimeout has passed. Other clients are served.
func TestClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			ended := make(chan string, maxRequests)
			endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for {
					if _, err := w.Write(make([]byte, 32<<10)); err != nil {
						ended <- r.Proto
						return
					}
				}
			})
			proxies := clientaddr.Proxies{Header: "X-Client", From: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
			h, err := start(minimalConfig(""), parts{recorder: &fakeRecorder{}, mounts: []mount{{"/endless", endless}, {"/short", respondWith("short")}}, proxies: proxies})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close(context.Background())
			h.writeTimeout = 2 * time.Second
			server := httptest.NewUnstartedServer(h.Wrap(http.NotFoundHandler()))
			server.EnableHTTP2 = protocol == "HTTP/2.0"
			server.StartTLS()
			defer server.Close()
			send := func(client, path string) int {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("X-Client", client)
				response, err := server.Client().Do(r) // the body stays unread until the test ends
				if err != nil {
					t.Fatal(err)
				}
				if path == "/short" {
					response.Body.Close()
				}
				return response.StatusCode
			}
			for i := range maxClientRequests {
				if status := send("192.0.2.1", "/endless"); status != 200 {
					t.Fatalf("request %d: %d", i, status)
				}
			}
			if len(ended) == 0 {
				if status := send("192.0.2.1", "/short"); status != 503 && len(ended) == 0 {
					t.Errorf("above the limit of a client: %d", status)
				}
			}
			if status := send("192.0.2.2", "/short"); status != 200 {
				t.Errorf("another client: %d", status)
			}
			for range maxClientRequests {
				if got := <-ended; got != protocol {
					t.Fatalf("protocol %s, want %s", got, protocol)
				}
			}
			for end := time.Now().Add(20 * time.Second); send("192.0.2.1", "/short") != 200; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the slots are not released")
				}
			}
		})
	}
}

// A request body has a read deadline, whether or not a handler reads it.
func TestBodyDeadline(t *testing.T) {
	t.Parallel()
	h, err := start(minimalConfig(""), parts{recorder: &fakeRecorder{}, mounts: []mount{{"/short", respondWith("short")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	var deadline atomic.Pointer[time.Time]
	wrapped := h.Wrap(http.NotFoundHandler())
	w := &readDeadline{httptest.NewRecorder(), &deadline}
	wrapped.ServeHTTP(w, httptest.NewRequest("GET", "/short", nil))
	if at := deadline.Load(); at != nil {
		t.Errorf("a request without a body has the deadline %v", at)
	}
	wrapped.ServeHTTP(w, httptest.NewRequest("GET", "/short", strings.NewReader("body")))
	if at := deadline.Load(); at == nil || time.Until(*at) > bodyTimeout {
		t.Errorf("a request with a body has the deadline %v", at)
	}
}

// A request cannot inject lines into an access log.
func TestAccessLogInjection(t *testing.T) {
	t.Parallel()
	config := minimalConfig("")
	config.Log.AccessLog.Disabled = false
	h, err := start(config, parts{recorder: &fakeRecorder{}, mounts: []mount{{"/ours", respondWith("ours")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	var ours, registry bytes.Buffer
	h.access = &ours
	app := gorilla.CombinedLoggingHandler(&registry, respondWith("registry")) // as in the host
	for name, c := range map[string]struct {
		handler http.Handler
		path    string
		log     *bytes.Buffer
	}{"ours": {h.Wrap(app), "/ours", &ours}, "registry": {h.Wrap(app), "/v2/", &registry}, "Routes": {h.Routes(), "/ours", &ours}} {
		c.log.Reset()
		raw := "GET http://x%0a192.0.2.1%20-%20-%20forged%1b%5b2J:secret@host" + c.path + " HTTP/1.1\r\nHost: host\r\nUser-Agent: a\u202eb\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			t.Fatal(err)
		}
		c.handler.ServeHTTP(httptest.NewRecorder(), r)
		line, rest, _ := strings.Cut(c.log.String(), "\n")
		if rest != "" || !strings.Contains(line, c.path) || strings.ContainsAny(line, "\x1b\u202e") {
			t.Errorf("%s: %q", name, c.log.String())
		}
	}
}

// readDeadline is a ResponseWriter that stores its read deadline.
type readDeadline struct {
	*httptest.ResponseRecorder
	at *atomic.Pointer[time.Time]
}

func (d *readDeadline) SetReadDeadline(at time.Time) error { d.at.Store(&at); return nil }

// zeros reads zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A route can hijack its connection, as the firehose does.
func TestRouteHijack(t *testing.T) {
	t.Parallel()
	socket := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connection, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer connection.Close()
		_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\nhello\n")
		_ = buffered.Flush()
	})
	h, err := start(minimalConfig(""), parts{recorder: &fakeRecorder{}, mounts: []mount{{"/socket", socket}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	server := httptest.NewServer(h.Wrap(http.NotFoundHandler()))
	defer server.Close()
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_, _ = io.WriteString(connection, "GET /socket HTTP/1.1\r\nHost: x\r\n\r\n")
	lines := bufio.NewReader(connection)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if err != nil || !strings.HasSuffix(string(rest), "hello\n") {
		t.Errorf("got %q, %v", rest, err)
	}
}

// With http.addr our routes are served at that address and not on the registry's port.
func TestOwnListener(t *testing.T) {
	t.Parallel()
	p := parts{recorder: &fakeRecorder{}, addr: "127.0.0.1:0", mounts: []mount{{"/tidings/", respondWith("tidings")}}}
	h, err := start(minimalConfig(""), p)
	if err != nil {
		t.Fatal(err)
	}
	address := h.own.addr.String()
	if got := get(t, h.Wrap(respondWith("registry")), "/tidings/x").Body.String(); got != "registry" {
		t.Errorf("on the registry's port: %s", got)
	}
	r := &testRegistry{t: t, url: "http://" + address, client: http.DefaultClient}
	if got := r.do("GET", "/tidings/x", nil); string(got.body) != "tidings" {
		t.Errorf("at http.addr: %d %s", got.status, got.body)
	}
	if got := r.do("GET", "/v2/", nil); got.status != 404 {
		t.Errorf("the registry at http.addr: %d", got.status)
	}

	closed := false
	p.addr, p.close = address, func(context.Context) error { closed = true; return nil }
	if _, err := start(minimalConfig(""), p); err == nil || !strings.Contains(err.Error(), "listen at http.addr") || !strings.Contains(err.Error(), address) {
		t.Errorf("an address in use: %v", err)
	}
	if !closed {
		t.Error("the parts were not closed")
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("still listening after Close")
	}
}

// Close closes the connections of requests that are running when its context ends.
func TestOwnListenerCloseTimeout(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(entered); <-r.Context().Done() })
	h, err := start(minimalConfig(""), parts{recorder: &fakeRecorder{}, addr: "127.0.0.1:0", mounts: []mount{{"/hang", hang}}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if response, err := http.Get("http://" + h.own.addr.String() + "/hang"); err == nil {
			response.Body.Close()
		}
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
}
