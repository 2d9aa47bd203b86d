package stats

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/notifier/counter"
)

// Prefix is where the API is; the handler expects paths that begin with it.
const Prefix = "/tidings/api/v1/"

// Config says what is shown and to whom.
type Config struct {
	Source   counter.Source // the numbers
	Fallback counter.Source // asked when Source fails; the answer then says "degraded"; nil: none

	// Pushes gives the latest pushes, newest first, of all repositories or of those
	// that are public; nil: the endpoint is not there.
	Pushes func(ctx context.Context, limit int, all bool) ([]Push, error)
	// Health gives what /health shows; nil: only that the process answers. Unless
	// all is true it is shown to everybody: it names no repository, and nothing in
	// it moves with what happens in those that are not public.
	Health func(ctx context.Context, all bool) any
	// Visible tells whether a repository is public; nil: none is.
	Visible func(repository string) bool
	// TokenFile holds a token whose bearer sees everything; empty: nobody does.
	// It is read at each use, so a new token needs no restart. Only its owner may
	// read it.
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

// New gives the handler of everything under Prefix.
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

// limit keeps a request from taking long, and everything between us and the
// reader from keeping an answer that was made for the bearer of a token.
func limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "this API is for reading: use GET")
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
