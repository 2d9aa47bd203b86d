package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/tidings-dev/tidings/notifier/backfill"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

// A Repair is the state of a repair of records and ledger.
type Repair struct {
	Phase string `json:"phase"` // as in reconcile; "": none is requested or running, and its last writes may be pending events of the records sink
}

// beginRepair lets the process repair its records and ledger.
func (h *handler) beginRepair(w http.ResponseWriter, r *http.Request) {
	if job, err := h.Backfill.Status(); err == nil && job.Running() && !job.DryRun {
		fail(w, http.StatusConflict, "Conflict", backfill.ErrRunning.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), idleTimeout)
	defer cancel()
	switch err := h.Repair(ctx); {
	case errors.Is(err, reconcile.ErrRepairing):
		fail(w, http.StatusConflict, "Running", err.Error())
	case errors.Is(err, reconcile.ErrBusy), errors.Is(err, reconcile.ErrNotVerified):
		fail(w, http.StatusServiceUnavailable, "Busy", err.Error())
	case err != nil:
		h.failed(w, r, err)
	default:
		h.sendRepair(w, r, http.StatusAccepted)
	}
}

// repair sends the state of the repair.
func (h *handler) repair(w http.ResponseWriter, r *http.Request) {
	h.sendRepair(w, r, http.StatusOK)
}

func (h *handler) sendRepair(w http.ResponseWriter, r *http.Request, status int) {
	phase, err := h.Records.Repair()
	if err != nil {
		h.failed(w, r, err)
		return
	}
	sendStatus(w, status, Repair{phase})
}
