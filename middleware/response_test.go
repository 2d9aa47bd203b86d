package middleware

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/tidings-dev/tidings/notifier"
)

// What a handler can do with a response writer, and when its push is heard.
func TestResponse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		handle func(http.ResponseWriter)
		status int
		body   string
		want   []string
	}{
		{"writes nothing", func(http.ResponseWriter) {}, 200, "", []string{"complete"}},
		{"writes a header", func(w http.ResponseWriter) { w.WriteHeader(201) }, 201, "", []string{"complete", "status 201"}},
		{"writes a body", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "a"); _, _ = io.WriteString(w, "b") }, 200, "ab", []string{"complete", "status 200"}},
		{"reads a body from elsewhere", func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("abc")) }, 200, "abc", []string{"complete", "status 200"}},
		{"flushes", func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, 200, "", []string{"complete"}},
		{"flushes through a controller", func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }, 200, "", []string{"complete"}},
		{"sends an early hint", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(201) }, 201, "", []string{"status 103", "complete", "status 201"}},
		{"fails", func(w http.ResponseWriter) { http.Error(w, "no", 500) }, 500, "no\n", []string{"release", "status 500"}},
		{"redirects", func(w http.ResponseWriter) { w.WriteHeader(304) }, 304, "", []string{"release", "status 304"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tape := &tape{alias: map[string]string{}}
			got := answerTo(t, tape, c.handle)
			if got.status != c.status || string(got.body) != c.body {
				t.Errorf("got %d %q, want %d %q", got.status, got.body, c.status, c.body)
			}
			if heard := short(tape.take()); !slices.Equal(heard, c.want) {
				t.Errorf("heard %q, want %q", heard, c.want)
			}
		})
	}
}

// Whatever a handler does, a push that is not recorded is one whole 503.
func TestResponseRefused(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(http.ResponseWriter){
		"writes nothing": func(http.ResponseWriter) {},
		"writes a header": func(w http.ResponseWriter) {
			w.Header().Set("Location", "/x")
			w.Header().Set("Content-Length", "3")
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(201)
			_, _ = io.WriteString(w, "abc")
		},
		"writes a body": func(w http.ResponseWriter) {
			if n, err := io.WriteString(w, "abc"); n != 3 || err != nil {
				t.Errorf("a dropped write: %d, %v", n, err)
			}
			w.WriteHeader(500)
		},
		"reads a body from elsewhere": func(w http.ResponseWriter) {
			if n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("abc")); n != 3 || err != nil {
				t.Errorf("a dropped ReadFrom: %d, %v", n, err)
			}
		},
		"flushes": func(w http.ResponseWriter) { w.(http.Flusher).Flush(); _, _ = io.WriteString(w, "abc") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tape := &tape{alias: map[string]string{}, complete: func(context.Context, notifier.Push) error { return errDisk }}
			got := answerTo(t, tape, handle)
			if code, _ := envelope(t, got); got.status != 503 || code != "UNAVAILABLE" {
				t.Errorf("got %d %s", got.status, got.body)
			}
			for _, header := range []string{"Location", "Etag"} {
				if got.header.Get(header) != "" {
					t.Errorf("%s is still there", header)
				}
			}
			if heard := short(tape.take()); !slices.Equal(heard, []string{"complete", "status 503"}) {
				t.Errorf("heard %q", heard)
			}
		})
	}
}

// A push that comes after the answer would never be settled.
func TestPushAfterTheAnswer(t *testing.T) {
	t.Parallel()
	tape := &tape{alias: map[string]string{}}
	h := &Handler{parts: parts{recorder: tape}}
	c := &call{handler: h, request: httptest.NewRequest("PUT", "/", nil)}
	if err := c.settle(201); err != nil {
		t.Fatal(err)
	}
	if _, err := c.intend(t.Context(), notifier.Push{}); !errors.Is(err, errAnswered) {
		t.Errorf("got %v", err)
	}
	if heard := tape.take(); len(heard) != 0 {
		t.Errorf("heard %q", heard)
	}
}

// answerTo serves one push whose storing has gone well, answered by handle.
func answerTo(t *testing.T, tape *tape, handle func(http.ResponseWriter)) answer {
	t.Helper()
	h, err := start(&configuration.Configuration{}, parts{recorder: tape})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	wrapped := h.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		p, err := c.intend(r.Context(), notifier.Push{Repository: "app", Digest: "d"})
		if err != nil {
			t.Error(err)
			return
		}
		c.put(p, nil)
		tape.take()
		handle(w)
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wrapped.ServeHTTP(&leaving{ResponseWriter: w, tape: tape}, r)
	}))
	defer server.Close()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil }})
	request, err := http.NewRequestWithContext(ctx, "PUT", server.URL+"/v2/app/manifests/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, body}
}

// short leaves the verb of a line about the push.
func short(lines []string) []string {
	for i, line := range lines {
		if verb, _, ok := strings.Cut(line, " app"); ok {
			lines[i] = verb
		}
	}
	return lines
}
