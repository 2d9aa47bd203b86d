package middleware

import (
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strings"

	"github.com/felixge/httpsnoop"
	gorilla "github.com/gorilla/handlers"
)

const (
	// maxRoutes is how many requests for our own routes run at once; they
	// share a port, and a machine, with pushes and pulls.
	maxRoutes = 256
	// maxBody is the outermost limit of a request body in bytes; what serves
	// a route has narrower ones.
	maxBody = 8 << 20
)

// mount serves a path of ours: a subtree if it ends in a slash, else exactly
// that path.
type mount struct {
	path    string
	handler http.Handler
}

func (m mount) has(path string) bool {
	if strings.HasSuffix(m.path, "/") {
		return strings.HasPrefix(path, m.path)
	}
	return path == m.path
}

// routes serves the mounts and leaves every other path to next, above all
// whatever the registry's API claims, wherever http.prefix puts it. The host's
// own panic handler and access log are further in and never see these
// requests, so they get their own.
func (h *Handler) routes(next http.Handler) http.Handler {
	ours := h.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range h.mounts {
			if m.has(r.URL.Path) {
				m.handler.ServeHTTP(w, r)
				return
			}
		}
	}))
	api := h.api()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range h.mounts {
			if m.has(r.URL.Path) && !strings.HasPrefix(r.URL.Path, api) {
				ours.ServeHTTP(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// guarded adds the limits, the recovery and, where the registry keeps one, the
// access log.
func (h *Handler) guarded(inner http.Handler) http.Handler {
	handler := h.limited(h.recovered(inner))
	if h.config.Log.AccessLog.Disabled {
		return handler
	}
	return gorilla.CombinedLoggingHandler(os.Stdout, handler)
}

func (h *Handler) limited(inner http.Handler) http.Handler {
	running := make(chan struct{}, maxRoutes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case running <- struct{}{}:
			defer func() { <-running }()
		default:
			h.metrics.turnedAway()
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusServiceUnavailable, "Unavailable", "too many requests are running; try again")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		inner.ServeHTTP(w, r)
	})
}

// recovered answers 500 for a handler that panics before it has answered, and
// cuts the connection for one that panics later.
func (h *Handler) recovered(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := false
		watched := httpsnoop.Wrap(w, httpsnoop.Hooks{
			WriteHeader: func(write httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
				return func(status int) { begun = begun || status >= 200; write(status) }
			},
			Write: func(write httpsnoop.WriteFunc) httpsnoop.WriteFunc {
				return func(p []byte) (int, error) { begun = true; return write(p) }
			},
			ReadFrom: func(read httpsnoop.ReadFromFunc) httpsnoop.ReadFromFunc {
				return func(src io.Reader) (int64, error) { begun = true; return read(src) }
			},
			Hijack: func(hijack httpsnoop.HijackFunc) httpsnoop.HijackFunc {
				begun = true
				return hijack
			},
		})
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if reason != http.ErrAbortHandler {
				h.metrics.panic()
				h.log.Error("a handler panicked", "path", r.URL.Path, "panic", reason, "stack", string(debug.Stack()))
			}
			if begun || reason == http.ErrAbortHandler {
				panic(http.ErrAbortHandler)
			}
			fail(w, http.StatusInternalServerError, "InternalServerError", "an error on our side; the registry's log has it")
		}()
		inner.ServeHTTP(watched, r)
	})
}

// fail answers in the form that both XRPC and our API use.
func fail(w http.ResponseWriter, status int, name, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"error":"` + name + `","message":"` + message + `"}` + "\n"))
}
