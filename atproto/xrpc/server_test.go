package xrpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// method is any query that has a schema and no required parameters.
const method = "com.atproto.sync.listRepos"

func serve(serve func(*Call) (any, error)) *Server {
	return &Server{
		Methods:   map[string]Method{method: Query(Public, serve)},
		Elsewhere: map[string]string{"com.example.elsewhere": "another service has it"},
		Handlers:  map[string]http.Handler{"_raw": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "raw") })},
		Errors: func(err error) *Error {
			if errors.Is(err, io.ErrNoProgress) {
				return Errorf(http.StatusTeapot, "Teapot", "%d", 7)
			}
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	}
}

func get(s *Server, verb, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(verb, path, nil))
	return w
}

func TestServer(t *testing.T) {
	t.Parallel()
	s := serve(func(*Call) (any, error) { return map[string]int{"n": 1}, nil })
	for _, tc := range []struct {
		verb, path string
		status     int
		body       string
	}{
		{"GET", "/xrpc/" + method, 200, `{"n":1}`},
		{"GET", "/xrpc/" + method + "/", 200, `{"n":1}`},
		{"GET", "/xrpc/" + method + "?limit=x", 400, "$.limit"},
		{"GET", "/xrpc/" + method + "?x=" + strings.Repeat("x", maxQuery), 414, "URITooLong"},
		{"POST", "/xrpc/" + method, 400, "Incorrect HTTP method (POST) expected GET"},
		{"GET", "/xrpc/_raw", 200, "raw"},
		{"POST", "/xrpc/_raw", 400, "Incorrect HTTP method"},
		{"OPTIONS", "/xrpc/" + method, 204, ""},
		{"GET", "/xrpc/com.example.elsewhere", 501, "com.example.elsewhere: another service has it"},
		{"GET", "/xrpc/com.example.unknown", 501, "MethodNotImplemented"},
		{"GET", "/xrpc/x", 400, "invalid method name"},
		{"GET", "/other", 404, "404"},
	} {
		if w := get(s, tc.verb, tc.path); w.Code != tc.status || !strings.Contains(w.Body.String(), tc.body) {
			t.Errorf("%s %.80s: got %d %s, want %d %s", tc.verb, tc.path, w.Code, w.Body, tc.status, tc.body)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err               error
		status            int
		name, retry, text string
	}{
		{io.ErrNoProgress, http.StatusTeapot, "Teapot", "", "7"},
		{context.Canceled, 503, "ServiceUnavailable", "", "took too long"},
		{errors.New("internal detail"), 500, "InternalServerError", "", "Internal Server Error"},
		{TooManyRequests(1500 * time.Millisecond), 429, "RateLimitExceeded", "2", ""},
	} {
		w := get(serve(func(*Call) (any, error) { return nil, tc.err }), "GET", "/xrpc/"+method)
		body := w.Body.String()
		if w.Code != tc.status || !strings.Contains(body, `"error":"`+tc.name+`"`) || !strings.Contains(body, tc.text) ||
			w.Header().Get("Retry-After") != tc.retry || strings.Contains(body, "internal detail") {
			t.Errorf("%v: got %d %s %v", tc.err, w.Code, body, w.Header())
		}
	}
}

// An error before the first byte is an error response; after it the connection is
// closed.
func TestStreamError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "418", "begun": "aborted"} {
		s := serve(func(*Call) (any, error) {
			return Stream{ContentType: "text/plain", Write: func(w io.Writer) error {
				if text != "" {
					_, _ = io.WriteString(w, text)
				}
				return io.ErrNoProgress
			}}, nil
		})
		got := func() (got string) {
			defer func() {
				if recover() == http.ErrAbortHandler {
					got = "aborted"
				}
			}()
			if get(s, "GET", "/xrpc/"+method).Code == http.StatusTeapot {
				return "418"
			}
			return "ok"
		}()
		if got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
