package admin

import (
	"errors"
	"fmt"
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
	request, err := backfillRequest(r)
	if err != nil {
		invalid(w, err.Error())
		return
	}
	h.sendJob(w, r, http.StatusAccepted)(h.Backfill.Begin(request))
}

func backfillRequest(r *http.Request) (request backfill.Request, err error) {
	request.Repository = r.FormValue("repository")
	if text := r.FormValue("perSecond"); text != "" {
		if request.Rate, err = strconv.ParseFloat(text, 64); err != nil {
			return request, fmt.Errorf("perSecond must be a number, not %q", text)
		}
	}
	if text := r.FormValue("dryRun"); text != "" {
		if request.DryRun, err = strconv.ParseBool(text); err != nil {
			return request, fmt.Errorf("dryRun must be true or false, not %q", text)
		}
	}
	return request, request.Validate()
}

func (h *handler) backfill(w http.ResponseWriter, r *http.Request) {
	h.sendJob(w, r, http.StatusOK)(h.Backfill.Status())
}

func (h *handler) stopBackfill(w http.ResponseWriter, r *http.Request) {
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
