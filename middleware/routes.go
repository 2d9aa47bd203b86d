package middleware

import (
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/felixge/httpsnoop"
	gorilla "github.com/gorilla/handlers"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/internal/clientaddr"
	"github.com/tidings-dev/tidings/internal/paced"
	"github.com/tidings-dev/tidings/middleware/observe"
)

// Wrap wraps the registry's app. Only manifest requests and the paths of our own
// routes are affected.
func (h *Handler) Wrap(app http.Handler) http.Handler {
	if h.observer == nil {
		return app
	}
	if h.own == nil && len(h.mounts) > 0 {
		app = h.routes(app)
	}
	return withoutUser(h.observer.Handler(app))
}

// withoutUser removes the user name from the URL of a request (http://name@host/path
// in the request line). Nothing uses it, and access logs, including the registry's
// own, would write it unescaped, with its line breaks.
func withoutUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.User = nil
		next.ServeHTTP(w, r)
	})
}

const (
	// maxRequests limits the concurrent requests for our own routes, which share the
	// machine with pushes and pulls, and maxClientRequests those of one client.
	maxRequests       = 256
	maxClientRequests = maxRequests / 4
	// writeTimeout limits the time for each write of a response, and bodyTimeout that
	// for a complete request body. A handler may set other limits.
	writeTimeout = 30 * time.Second
	bodyTimeout  = 30 * time.Second
	// maxBody limits a request body, in bytes. Handlers have lower limits.
	maxBody = hold.MaxBody
)

// wellKnown is the folder of a hold's DID document and handle.
const wellKnown = "/.well-known/"

// mount is one of our own routes: a subtree if the path ends in a slash, otherwise
// a single path.
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

// routes serves the mounts and passes all other paths to next, including all paths of
// the registry's API, which http.prefix can place below a mount. The host's panic
// handler and access log are inside of next, so the mounts have their own.
func (h *Handler) routes(next http.Handler) http.Handler {
	ours := h.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range h.mounts {
			if m.has(r.URL.Path) {
				m.handler.ServeHTTP(w, r)
				return
			}
		}
	}))
	api := observe.APIPath(h.config.HTTP.Prefix)
	hold := slices.ContainsFunc(h.mounts, func(m mount) bool { return strings.HasPrefix(m.path, wellKnown) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range h.mounts {
			if m.has(r.URL.Path) && !strings.HasPrefix(r.URL.Path, api) {
				ours.ServeHTTP(w, r)
				return
			}
		}
		if hold && strings.HasPrefix(r.URL.Path, wellKnown) {
			// Clients in browsers request files that a hold does not have, such as
			// oauth-protected-resource. Without this header they get a network error
			// instead of the 404.
			w.Header().Set("Access-Control-Allow-Origin", "*")
		}
		next.ServeHTTP(w, r)
	})
}

// guarded adds limits, recovery from panics and, if the registry has one, an
// access log.
func (h *Handler) guarded(inner http.Handler) http.Handler {
	handler := h.limited(h.recovered(inner))
	if !h.config.Log.AccessLog.Disabled {
		handler = gorilla.CombinedLoggingHandler(h.access, handler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, h.proxies.Resolve(r))
	})
}

// limited takes a slot for each request, and limits its body and the time for body and
// response.
func (h *Handler) limited(inner http.Handler) http.Handler {
	slots := clientaddr.NewSlots(maxRequests, maxClientRequests)
	busy := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "Unavailable", "too many requests are running; try again")
	})
	inner, refused := paced.Handler(inner, h.writeTimeout), paced.Handler(busy, h.writeTimeout)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // the server reads the body even if no handler does
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		client := clientaddr.Of(r)
		if !slots.Acquire(client) {
			h.metrics.tooMany()
			refused.ServeHTTP(w, r)
			return
		}
		defer slots.Release(client)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		inner.ServeHTTP(w, r)
	})
}

// recovered answers 500 if a handler panics before it has sent a response, and
// otherwise closes the connection.
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
				h.log.Error("handler panicked", "path", r.URL.Path, "panic", reason, "stack", string(debug.Stack()))
			}
			if begun || reason == http.ErrAbortHandler {
				panic(http.ErrAbortHandler)
			}
			fail(w, http.StatusInternalServerError, "InternalServerError", "internal error; the registry's log has the reason")
		}()
		inner.ServeHTTP(watched, r)
	})
}

// fail responds in the error format of XRPC, which our API uses as well.
func fail(w http.ResponseWriter, status int, name, message string) {
	body := `{"error":"` + name + `","message":"` + message + `"}` + "\n"
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}
