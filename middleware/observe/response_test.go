package observe

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier"
)

// A push is completed before the first byte of the final response is sent,
// whichever method of the response writer the handler calls first.
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
		{"copies a body from a reader", func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("abc")) }, 200, "abc", []string{"complete", "status 200"}},
		{"flushes", func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, 200, "", []string{"complete"}},
		{"flushes through a controller", func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }, 200, "", []string{"complete"}},
		{"sends early hints", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(201) }, 201, "", []string{"status 103", "complete", "status 201"}},
		{"fails", func(w http.ResponseWriter) { http.Error(w, "no", 500) }, 500, "no\n", []string{"release", "status 500"}},
		{"answers not modified", func(w http.ResponseWriter) { w.WriteHeader(304) }, 304, "", []string{"release", "status 304"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rec := &fakeRecorder{}
			got := answerTo(t, rec, c.handle)
			if got.status != c.status || string(got.body) != c.body {
				t.Errorf("got %d %q, want %d %q", got.status, got.body, c.status, c.body)
			}
			if got := rec.take(); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A push that cannot be recorded is answered with one complete 503, whatever the
// handler writes.
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
				t.Errorf("discarded Write: %d, %v", n, err)
			}
			w.WriteHeader(500)
		},
		"copies a body from a reader": func(w http.ResponseWriter) {
			if n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("abc")); n != 3 || err != nil {
				t.Errorf("discarded ReadFrom: %d, %v", n, err)
			}
		},
		"flushes": func(w http.ResponseWriter) { w.(http.Flusher).Flush(); _, _ = io.WriteString(w, "abc") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := &fakeRecorder{complete: errors.New("disk failed")}
			got := answerTo(t, rec, handle)
			var body struct{ Errors []struct{ Code string } }
			if err := json.Unmarshal(got.body, &body); err != nil || got.status != 503 || len(body.Errors) != 1 || body.Errors[0].Code != "UNAVAILABLE" {
				t.Errorf("got %d %s, want one error in the registry's format", got.status, got.body)
			}
			for _, header := range []string{"Location", "Etag"} {
				if got.header.Get(header) != "" {
					t.Errorf("the 503 has a header %s", header)
				}
			}
			if got := rec.take(); !slices.Equal(got, []string{"complete", "status 503"}) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// A push that begins after the response is refused, since it could not be
// completed.
func TestPushAfterResponse(t *testing.T) {
	t.Parallel()
	rec := &fakeRecorder{}
	r := &request{observer: New(Config{Recorder: rec}), Request: httptest.NewRequest("PUT", "/", nil)}
	if err := r.answer(201); err != nil {
		t.Fatal(err)
	}
	if _, err := r.intend(t.Context(), notifier.Push{}); !errors.Is(err, errAnswered) {
		t.Errorf("got %v", err)
	}
	if got := rec.take(); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

// answer is a response whose body has been read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// answerTo returns the answer to one push that was stored and to which handle
// responds.
func answerTo(t *testing.T, rec *fakeRecorder, handle func(http.ResponseWriter)) answer {
	t.Helper()
	observer := New(Config{Recorder: rec, Log: slog.New(slog.DiscardHandler), Unrecorded: func(string) {}})
	wrapped := observer.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		observed := requestOf(r.Context())
		p, err := observed.intend(r.Context(), notifier.Push{Repository: "app", Digest: "d"})
		if err != nil {
			t.Error(err)
			return
		}
		observed.put(p, nil)
		rec.take()
		handle(w)
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wrapped.ServeHTTP(&statusWriter{ResponseWriter: w, recorder: rec}, r)
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
