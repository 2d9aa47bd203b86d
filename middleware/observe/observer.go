package observe

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/distribution/distribution/v3"
)

// Config describes an Observer.
type Config struct {
	Recorder Recorder
	Prefix   string // http.prefix of the registry's configuration
	Log      *slog.Logger

	// Permit decides whether an actor ("": anonymous) may push to a repository, before
	// anything is stored. An error, of Denied or RetryLater, is sent as it is. It waits for
	// nothing. nil: everybody whom the registry admits.
	Permit func(repository, actor string) error

	// Unrecorded is called for each push or delete (the operation) that is answered
	// 503 because it could not be recorded.
	Unrecorded func(operation string)
}

// Observer observes the requests of one registry.
type Observer struct {
	Config
	base string // path of the registry's API
}

// New returns an Observer.
func New(cfg Config) *Observer {
	return &Observer{Config: cfg, base: APIPath(cfg.Prefix)}
}

// APIPath returns the path below which the registry's API is, for the http.prefix
// of its configuration.
func APIPath(prefix string) string { return strings.TrimRight(prefix, "/") + "/v2/" }

// Handler wraps the registry's app. Requests other than manifest requests and, with
// Permit, those that begin uploads, pass through unchanged.
func (o *Observer) Handler(app http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isManifest(o.base, r.URL.Path) && !(o.Permit != nil && isUpload(o.base, r)) {
			app.ServeHTTP(w, r)
			return
		}
		observed := &request{observer: o, Request: r}
		answer := &response{ResponseWriter: w, request: observed}
		returned := false
		defer func() {
			if !returned {
				observed.panicked()
			}
		}()
		app.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), requestKey{}, observed)))
		returned = true
		answer.begin(http.StatusOK) // what net/http sends for a handler that wrote nothing
	})
}

// Repository wraps a repository whose requests come through Handler.
func (o *Observer) Repository(inner distribution.Repository) distribution.Repository {
	return &repository{Repository: inner, observer: o}
}

// isUpload matches POST <base><name>/blobs/uploads/, which begins each upload.
func isUpload(base string, r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, base) && strings.HasSuffix(r.URL.Path, "/blobs/uploads/")
}

// isManifest matches <base><name>/manifests/<reference>.
func isManifest(base, path string) bool {
	rest, ok := strings.CutPrefix(path, base)
	if !ok {
		return false
	}
	i := strings.LastIndexByte(rest, '/')
	return i > 0 && i < len(rest)-1 && strings.HasSuffix(rest[:i], "/manifests")
}
