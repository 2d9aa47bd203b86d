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
	Fallback counts.Source // asked when Source fails; the answer then says "degraded"; nil: none

	// Pushes returns the latest pushes, newest first, of all repositories or only
	// of public ones; nil: there is no such endpoint.
	Pushes func(ctx context.Context, limit int, all bool) ([]Push, error)
	// Health returns the content of /health; nil: only a status. Unless all is true
	// the response is public: it names no repository, and nothing in it depends on
	// events of private repositories.
	Health func(ctx context.Context, all bool) any
	// Visible reports whether a repository is public; nil: none is.
	Visible func(repository string) bool
	// TokenFile has the token that gives access to everything; empty: there is no
	// such access. It is read for each request, so a new token needs no restart.
	// Its file mode must not give access to group or others.
	TokenFile string

	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: silent
}

type api struct {
	Config
	log     *slog.Logger
	bad     bad
	listing listing
	reading chan struct{} // has room for readers
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
	mux.HandleFunc("/", notHere)
	return limit(mux)
}

// limit sets a deadline for requests, and prevents proxies from caching responses,
// which may have been made for a client with the token.
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

func notHere(w http.ResponseWriter, q *http.Request) {
	fail(w, http.StatusNotFound, "NotFound", "there is nothing here; the API has repositories, pushes and health under "+Prefix)
}
