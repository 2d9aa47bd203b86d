package publication

import (
	"io"
	"net/http"
	"net/url"
)

// wellKnown is the path of the file that names the record of the publication of a host.
const wellKnown = "/.well-known/site.standard.publication"

// Paths returns the paths that the Site serves for a publication whose pages have the path
// pages. Readers use the second for a publication that is not at the root of its host; some
// know only the first.
func Paths(pages string) []string { return []string{wellKnown, wellKnown + pages} }

// Paths are the paths that the Site serves.
func (s *Site) Paths() []string {
	u, err := url.Parse(s.cfg.URL)
	if err != nil {
		return []string{wellKnown}
	}
	return Paths(u.Path)
}

// ServeHTTP serves the at:// URI of the record, and 404 before the account has it.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	uri := s.URI()
	if uri == "" {
		http.Error(w, "the publication is not written yet", http.StatusNotFound)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	_, _ = io.WriteString(w, uri)
}
