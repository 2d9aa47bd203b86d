package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/inspect"
	"github.com/tidings-dev/tidings/notifier/operate"
)

// Sinks acts on the sinks, between two of their steps.
type Sinks interface {
	// PauseSink pauses a sink, durably, and waits until it is idle or ctx ends.
	PauseSink(ctx context.Context, name string) error
	// ResumeSink ends the pause.
	ResumeSink(name string) error
	// SkipEvents gives up the pending events up to a sequence number, 0 for the first.
	SkipEvents(ctx context.Context, box deadletters.Box, to uint64) (operate.Skipped, error)
	// CheckSkip returns the error of SkipEvents if there are no such events.
	CheckSkip(box deadletters.Box, to uint64) error
	// RewindSink lets a sink handle the pushes after a sequence number again or, if since is
	// not zero, those that were recorded since then.
	RewindSink(ctx context.Context, name string, to uint64, since time.Time) (operate.Rewound, error)
	// CheckRewind returns the error of RewindSink if the sink cannot be rewound like that.
	CheckRewind(name string, to uint64, since time.Time) error
}

// Inspect describes the journal, with up to events pending events of each sink.
type Inspect func(events int) (*inspect.Report, error)

// idleTimeout is how long a request waits for the step of a sink to end.
const idleTimeout = 20 * time.Second

// A SinkPage is the response with sinks.
type SinkPage struct {
	Sinks []Sink `json:"sinks"`
}

func (h *handler) sinks(w http.ResponseWriter, r *http.Request) {
	send(w, SinkPage{h.Status(r.Context()).Sinks})
}

// sinkNamed sends the state of a sink, by stream.
func (h *handler) sinkNamed(w http.ResponseWriter, r *http.Request) {
	all := slices.Clone(h.Status(r.Context()).Sinks)
	send(w, SinkPage{slices.DeleteFunc(all, func(s Sink) bool { return s.Sink != r.PathValue("sink") })})
}

func (h *handler) pause(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), idleTimeout)
	defer cancel()
	if err := h.Sinks.PauseSink(ctx, r.PathValue("sink")); err != nil {
		h.failed(w, r, err)
		return
	}
	h.sinkNamed(w, r)
}

func (h *handler) resume(w http.ResponseWriter, r *http.Request) {
	if err := h.Sinks.ResumeSink(r.PathValue("sink")); err != nil {
		h.failed(w, r, err)
		return
	}
	h.sinkNamed(w, r)
}

// skip skips events or, for GET, checks whether that is possible.
func (h *handler) skip(w http.ResponseWriter, r *http.Request) {
	box, ok := boxOf(w, r)
	if !ok {
		return
	}
	to, ok := number(w, r, "to")
	if !ok {
		return
	}
	if r.Method == http.MethodGet {
		h.sendCheck(w, r, h.Sinks.CheckSkip(box, to))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), idleTimeout)
	defer cancel()
	done, err := h.Sinks.SkipEvents(ctx, box, to)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	send(w, done)
}

// sendCheck sends the response of a request that only checks whether another is possible.
func (h *handler) sendCheck(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		h.failed(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// rewind rewinds a sink or, for GET, checks whether that is possible.
func (h *handler) rewind(w http.ResponseWriter, r *http.Request) {
	var since time.Time
	if text := r.FormValue("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil || since.IsZero() {
			invalid(w, "since must be a time such as 2026-01-31T12:00:00Z")
			return
		}
	}
	if since.IsZero() == (r.FormValue("to") == "") {
		invalid(w, "either to or since is required")
		return
	}
	to, ok := number(w, r, "to")
	if !ok {
		return
	}
	if r.Method == http.MethodGet {
		h.sendCheck(w, r, h.Sinks.CheckRewind(r.PathValue("sink"), to, since))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), idleTimeout)
	defer cancel()
	done, err := h.Sinks.RewindSink(ctx, r.PathValue("sink"), to, since)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	send(w, done)
}

func (h *handler) journal(w http.ResponseWriter, r *http.Request) {
	events, ok := number(w, r, "events")
	if !ok {
		return
	}
	if events > inspect.MaxEvents {
		invalid(w, fmt.Sprintf("events must be a number up to %d", inspect.MaxEvents))
		return
	}
	report, err := h.Inspect(int(events))
	if err != nil {
		h.failed(w, r, err)
		return
	}
	send(w, report)
}

// number returns a parameter, 0 if it is missing.
func number(w http.ResponseWriter, r *http.Request, name string) (n uint64, ok bool) {
	text := r.FormValue(name)
	if text == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		invalid(w, name+" must be a number")
		return 0, false
	}
	return n, true
}
