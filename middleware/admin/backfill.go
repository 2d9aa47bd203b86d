package admin

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/tidings-dev/tidings/notifier/backfill"
)

// Backfill begins and ends backfills.
type Backfill interface {
	// Begin begins a job. It returns backfill.ErrRunning while another one runs.
	Begin(backfill.Request) (backfill.Job, error)
	// Status returns the last job, or backfill.ErrNone.
	Status() (backfill.Job, error)
	// Stop ends the job that runs and returns it, or backfill.ErrNone.
	Stop() (backfill.Job, error)
}

// noAccount is the response if nothing is published, or storage cannot be read.
const noAccount = "the configuration has neither hold nor account, or the registry's storage is in memory or a pull-through cache: there are no records to manage"

func (h *handler) beginBackfill(w http.ResponseWriter, r *http.Request) {
	if h.Backfill == nil {
		fail(w, http.StatusConflict, "Conflict", noAccount)
		return
	}
	request := backfill.Request{Repository: r.FormValue("repository")}
	var err error
	if text := r.FormValue("perSecond"); text != "" {
		request.Rate, err = strconv.ParseFloat(text, 64)
	}
	if text := r.FormValue("dryRun"); err == nil && text != "" {
		request.DryRun, err = strconv.ParseBool(text)
	}
	if err == nil {
		err = request.Validate()
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "InvalidRequest", err.Error())
		return
	}
	h.sendJob(w, r, http.StatusAccepted)(h.Backfill.Begin(request))
}

func (h *handler) backfill(w http.ResponseWriter, r *http.Request) {
	if h.Backfill == nil {
		fail(w, http.StatusConflict, "Conflict", noAccount)
		return
	}
	h.sendJob(w, r, http.StatusOK)(h.Backfill.Status())
}

func (h *handler) stopBackfill(w http.ResponseWriter, r *http.Request) {
	if h.Backfill == nil {
		fail(w, http.StatusConflict, "Conflict", noAccount)
		return
	}
	h.sendJob(w, r, http.StatusOK)(h.Backfill.Stop())
}

// sendJob returns a function that sends a job or its error.
func (h *handler) sendJob(w http.ResponseWriter, r *http.Request, status int) func(backfill.Job, error) {
	return func(j backfill.Job, err error) {
		switch {
		case errors.Is(err, backfill.ErrRunning):
			fail(w, http.StatusConflict, "Running", err.Error())
		case err != nil:
			h.failed(w, r, err)
		default:
			sendStatus(w, status, j)
		}
	}
}
