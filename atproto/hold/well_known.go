package hold

import (
	"io"
	"net/http"
	"strconv"
)

// didJSON is /.well-known/did.json.
func (s *Server) didJSON(w http.ResponseWriter, r *http.Request) {
	if onlyGET(w, r) {
		s.reply(w, r, http.StatusOK, s.doc)
	}
}

// atprotoDID is /.well-known/atproto-did, which proves the handle.
func (s *Server) atprotoDID(w http.ResponseWriter, r *http.Request) {
	if !onlyGET(w, r) {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(s.id.DID)))
	_, _ = io.WriteString(w, s.id.DID) // the client may be gone
}

// onlyGET answers everything but GET and HEAD, for scripts of any site, too.
func onlyGET(w http.ResponseWriter, r *http.Request) bool {
	allowBrowsers(w.Header())
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return true
	case http.MethodOptions:
		allowAnyCall(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return false
	}
	w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	http.Error(w, "only GET", http.StatusMethodNotAllowed)
	return false
}
