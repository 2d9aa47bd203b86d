// Package stats serves counts, pushes and health as a JSON API under
// /tidings/api/v1.
//
// It is read-only and not involved in pushes and pulls. It decides which repositories a
// client may see: without a token, a private repository looks like one that does not
// exist. The counts come from a counts.Source.
package stats

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// Prefix is the path of the API; the handler expects it in requests.
const Prefix = "/tidings/api/v1/"

// Config configures the API.
type Config struct {
	Source   counts.Source // of the counts
	Fallback counts.Source // read if Source fails; the response is then "degraded"; nil: none

	// Pushes returns the latest pushes, newest first, of all repositories or only
	// of public ones; nil: there is no such endpoint.
	Pushes func(ctx context.Context, limit int, all bool) ([]Push, error)
	// Health returns the content of /health; nil: only a status. Unless all is true
	// the response is public: it names no repository, and nothing in it depends on
	// events of private repositories.
	Health func(ctx context.Context, all bool) any
	// Visible reports whether a repository is public; nil: none is.
	Visible func(repository string) bool
	// TokenFile has the token for access to all repositories; empty: there is no such
	// access. It is read for each request, so that a new token needs no restart. Group
	// and others must not have access to the file.
	TokenFile string

	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: silent
}

type api struct {
	Config
	log     *slog.Logger
	bad     bad
	listing listing
	reading chan struct{} // a slot for each of readers concurrent reads
}

// New returns the handler of all paths under Prefix.
func New(cfg Config) http.Handler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Visible == nil {
		cfg.Visible = func(string) bool { return false }
	}
	if cfg.Health == nil {
		cfg.Health = func(context.Context, bool) any { return map[string]string{"status": "ok"} }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &api{Config: cfg, log: cfg.Logger.With("component", "stats"), reading: make(chan struct{}, readers)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix+"repositories", a.repositories)
	mux.HandleFunc("GET "+Prefix+"repositories/{name...}", a.repository)
	mux.HandleFunc("GET "+Prefix+"health", a.health)
	if cfg.Pushes != nil {
		mux.HandleFunc("GET "+Prefix+"pushes", a.pushes)
	}
	mux.HandleFunc("/", notFound)
	return limit(mux)
}

// limit sets a deadline for requests, and prevents proxies from caching responses, since
// they may be for a client with the token.
func limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "this API is read-only: use GET")
			return
		}
		ctx, cancel := context.WithTimeout(q.Context(), 10*time.Second)
		defer cancel()
		next.ServeHTTP(w, q.WithContext(ctx))
	})
}

func notFound(w http.ResponseWriter, q *http.Request) {
	fail(w, http.StatusNotFound, "NotFound", "no such endpoint; the API has repositories, pushes and health under "+Prefix)
}

// health serves the result of Config.Health. The status is 200 even if something is
// degraded: the registry works, and an orchestrator must not restart it.
func (a *api) health(w http.ResponseWriter, q *http.Request) {
	caller, ok := a.access(w, q)
	if !ok {
		return
	}
	respond(w, a.Health(q.Context(), caller.all))
}
