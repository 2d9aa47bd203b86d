package middleware

import (
	"context"
	"net/http"
	"strings"
)

// Wrap puts the Handler around the registry's app. Only manifest requests and
// the mounted paths are touched.
func (h *Handler) Wrap(app http.Handler) http.Handler {
	if h.recorder == nil {
		return app
	}
	if h.own == nil && len(h.mounts) > 0 {
		return withoutUser(h.heard(h.routes(app)))
	}
	return withoutUser(h.heard(app))
}

// withoutUser drops the user name of a request's URL (http://name@host/path in
// the request line). Nobody needs it, and the access log, the registry's own
// too, would write it as it is, line ends included.
func withoutUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.User = nil
		next.ServeHTTP(w, r)
	})
}

// heard gives a manifest request its call and settles what the app left open.
func (h *Handler) heard(app http.Handler) http.Handler {
	base := h.api()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isManifest(base, r.URL.Path) {
			app.ServeHTTP(w, r)
			return
		}
		c := &call{handler: h, request: r}
		answer := &response{ResponseWriter: w, call: c}
		returned := false
		defer func() {
			if !returned {
				c.crash() // and let the panic go on
			}
		}()
		app.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
		returned = true
		answer.begin(http.StatusOK) // what net/http sends for a handler that wrote nothing
	})
}

// api is where the registry's API begins.
func (h *Handler) api() string {
	return strings.TrimRight(h.config.HTTP.Prefix, "/") + "/v2/"
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
