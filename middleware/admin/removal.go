package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/distribution/reference"

	"github.com/tidings-dev/tidings/notifier/reconcile"
)

// Records removes and repairs records.
type Records interface {
	// Orphans returns claims whose manifest is gone, as reconcile.Reconciler does.
	Orphans(ctx context.Context, after []byte, limit int) (found []reconcile.Claim, looked int, next []byte, err error)
	// CheckBusy returns an error while nothing can be removed, to be tried again.
	CheckBusy() error
	// Forsake removes the records of claims.
	Forsake(ctx context.Context, claims []reconcile.Claim) error
	// CountPublished makes a step of counting what Purge would remove.
	CountPublished(ctx context.Context, repository, cursor string) (reconcile.Published, error)
	// Purge removes what was published of a repository, and returns the sequence number of
	// the event that does.
	Purge(ctx context.Context, repository string) (seq uint64, err error)
	// Repair returns the phase of a repair that is requested or running, "" if there is none.
	Repair() (phase string, err error)
}

// gcPage is how many ledger entries a request looks at.
const gcPage = 200

// An OrphansPage is the response with records whose manifest is gone.
type OrphansPage struct {
	Orphans []reconcile.Claim `json:"orphans"`
	Looked  int               `json:"looked"`           // manifests that were looked at
	Cursor  string            `json:"cursor,omitempty"` // of the next page
}

// orphans lists records whose manifest is gone and, for POST, removes them.
func (h *handler) orphans(w http.ResponseWriter, r *http.Request) {
	after, err := hex.DecodeString(r.FormValue("cursor"))
	if err != nil {
		invalid(w, "invalid cursor")
		return
	}
	if len(after) == 0 {
		after = nil
	}
	if r.Method == http.MethodPost {
		if err := h.Records.CheckBusy(); err != nil {
			fail(w, http.StatusServiceUnavailable, "Busy", err.Error())
			return
		}
	}
	found, looked, next, err := h.Records.Orphans(r.Context(), after, gcPage)
	if err == nil && r.Method == http.MethodPost {
		err = h.Records.Forsake(r.Context(), found)
	}
	if err != nil {
		h.failed(w, r, err)
		return
	}
	send(w, OrphansPage{append([]reconcile.Claim{}, found...), looked, hex.EncodeToString(next)})
}

// A Purge is the response to a purge that is recorded.
type Purge struct {
	Event uint64 `json:"event"` // its sequence number
}

// purge purges a repository or, for GET, makes a step of counting what that would remove.
func (h *handler) purge(w http.ResponseWriter, r *http.Request) {
	repository := r.FormValue("repository")
	if _, err := reference.WithName(repository); err != nil || strings.HasPrefix(repository, "did:") {
		invalid(w, "repository must be the name of a repository of this registry, such as oss/app")
		return
	}
	var result any
	var err error
	if r.Method == http.MethodPost {
		var seq uint64
		seq, err = h.Records.Purge(r.Context(), repository)
		result = Purge{seq}
	} else {
		result, err = h.Records.CountPublished(r.Context(), repository, r.FormValue("cursor"))
	}
	switch {
	case errors.Is(err, reconcile.ErrPurgeCursor):
		invalid(w, err.Error())
	case errors.Is(err, reconcile.ErrBusy), errors.Is(err, reconcile.ErrNotVerified):
		fail(w, http.StatusServiceUnavailable, "Busy", err.Error())
	case err != nil:
		h.failed(w, r, err)
	default:
		send(w, result)
	}
}
