package hold

import (
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// wellKnown serves the files by which the network finds the account:
// /.well-known/did.json, the DID document, and /.well-known/atproto-did, which
// proves that the handle belongs to the DID.
type wellKnown struct {
	doc identity.Document
	lg  *slog.Logger
}

func (h wellKnown) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch r.URL.Path {
	case "/.well-known/did.json":
		if xrpc.AllowGET(w, r) {
			xrpc.WriteJSON(w, http.StatusOK, h.doc, h.lg)
		}
	case "/.well-known/atproto-did":
		if xrpc.AllowGET(w, r) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Content-Length", strconv.Itoa(len(h.doc.ID)))
			_, _ = io.WriteString(w, h.doc.ID) // the client may be gone
		}
	default:
		http.NotFound(w, r)
	}
}
