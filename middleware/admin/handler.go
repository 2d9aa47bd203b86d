package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/backfill"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/operate"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/remote"
	"github.com/tidings-dev/tidings/notifier/runner"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// Letters are the dead letters of all sinks.
type Letters interface {
	// List returns letters, without their events, and the cursor of the next page, "" if
	// there is none. sink "" is all sinks.
	List(sink, cursor string, limit int) (page []deadletters.Letter, next string, err error)
	// Get returns the letter whose first event has the number seq.
	Get(box deadletters.Box, seq uint64) (*deadletters.Letter, error)
	// Drop removes such a letter.
	Drop(box deadletters.Box, seq uint64) error
}

// Retry lets the sink of a letter handle its event again.
type Retry func(ctx context.Context, box deadletters.Box, seq uint64) error

// Config configures New.
type Config struct {
	Status  func(context.Context) Status
	Backup  Backup  // nil: the data folder is not open
	Letters Letters // nil: the process has no sinks
	Retry   Retry
	Sinks   Sinks
	Inspect Inspect
	Uses    Uses
	Log     *slog.Logger

	Announcements Announcements // nil: nothing is announced
	Backfill      Backfill      // nil: there are no records
	Records       Records       // nil: there are none

	// Repair begins a repair of records and ledger; nil: there are no records.
	Repair func(context.Context) error
}

// Limits of a page.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// maxBody limits a request body, in bytes. No request needs one.
const maxBody = 4 << 10

type handler struct{ Config }

// New returns the handler of the API.
func New(cfg Config) http.Handler {
	h := &handler{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", h.status)
	mux.HandleFunc("GET /v1/sinks", h.sinks)
	if h.Letters != nil {
		h.addSinks(mux)
	}
	if h.Backup != nil {
		mux.HandleFunc("POST /v1/backup", h.backup)
	}
	mux.HandleFunc("/", h.unknown)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer h.recover(w, r)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// addSinks adds the requests of a process that has sinks.
func (h *handler) addSinks(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/sinks/{sink}/pause", h.pause)
	mux.HandleFunc("POST /v1/sinks/{sink}/resume", h.resume)
	mux.HandleFunc("GET /v1/sinks/{sink}/skip", h.skip)
	mux.HandleFunc("POST /v1/sinks/{sink}/skip", h.skip)
	mux.HandleFunc("GET /v1/sinks/{sink}/rewind", h.rewind)
	mux.HandleFunc("POST /v1/sinks/{sink}/rewind", h.rewind)
	mux.HandleFunc("GET /v1/journal", h.journal)
	mux.HandleFunc("GET /v1/lastuse", h.lastUse)
	mux.HandleFunc("GET /v1/dead", h.letters)
	mux.HandleFunc("GET /v1/dead/{sink}/{seq}", h.letter)
	mux.HandleFunc("POST /v1/dead/{sink}/{seq}/retry", h.retry)
	mux.HandleFunc("DELETE /v1/dead/{sink}/{seq}", h.drop)
	announced := only(h.Announcements != nil, noAnnouncements)
	mux.HandleFunc("GET /v1/announcements", announced(h.announcements))
	mux.HandleFunc("DELETE /v1/announcements", announced(h.withdraw))
	recorded := only(h.Backfill != nil && h.Records != nil, noAccount)
	mux.HandleFunc("POST /v1/backfill", recorded(h.beginBackfill))
	mux.HandleFunc("GET /v1/backfill", recorded(h.backfill))
	mux.HandleFunc("DELETE /v1/backfill", recorded(h.stopBackfill))
	mux.HandleFunc("GET /v1/gc", recorded(h.orphans))
	mux.HandleFunc("POST /v1/gc", recorded(h.orphans))
	mux.HandleFunc("GET /v1/purge", recorded(h.purge))
	mux.HandleFunc("POST /v1/purge", recorded(h.purge))
	mux.HandleFunc("POST /v1/repair", recorded(h.beginRepair))
	mux.HandleFunc("GET /v1/repair", recorded(h.repair))
}

// only returns a function that replaces handlers, unless the configuration has what they
// need, by one that answers 409 with the reason.
func only(has bool, reason string) func(http.HandlerFunc) http.HandlerFunc {
	return func(h http.HandlerFunc) http.HandlerFunc {
		if has {
			return h
		}
		return func(w http.ResponseWriter, _ *http.Request) { fail(w, http.StatusConflict, "Conflict", reason) }
	}
}

// recover answers 500 if a handler panics.
func (h *handler) recover(w http.ResponseWriter, r *http.Request) {
	if reason := recover(); reason != nil {
		h.Log.Error("a handler of the admin API panicked", "path", r.URL.Path, "panic", reason, "stack", string(debug.Stack()))
		fail(w, http.StatusInternalServerError, "InternalError", "internal error; the registry's log has the reason")
	}
}

func (h *handler) unknown(w http.ResponseWriter, r *http.Request) {
	if h.Letters == nil {
		fail(w, http.StatusServiceUnavailable, "Unavailable", "this process has no sinks: it serves a hold that takes no notifications, or the data folder is not open; GET /v1/status says more")
		return
	}
	fail(w, http.StatusNotFound, "UnknownMethod", r.Method+" "+r.URL.Path+" is no request of this API")
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) { send(w, h.Status(r.Context())) }

// A Page is the response with letters.
type Page struct {
	Letters []Letter `json:"letters"`
	Cursor  string   `json:"cursor,omitempty"` // of the next page
}

// sinkNames are the sinks that can have letters, also of earlier configurations.
var sinkNames = []string{records.Name, announce.Name, remote.Name, sink.Counters}

func (h *handler) letters(w http.ResponseWriter, r *http.Request) {
	limit, ok := limitOf(w, r)
	if !ok {
		return
	}
	of := r.FormValue("sink")
	if of != "" && !slices.Contains(sinkNames, of) {
		fail(w, http.StatusNotFound, names[http.StatusNotFound], fmt.Sprintf("no such sink: %s; the sinks are %s", of, strings.Join(sinkNames, ", ")))
		return
	}
	found, next, err := h.Letters.List(of, r.FormValue("cursor"), limit)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	page := Page{Letters: []Letter{}, Cursor: next}
	for i := range found {
		page.Letters = append(page.Letters, letterOf(&found[i]))
	}
	send(w, page)
}

func (h *handler) letter(w http.ResponseWriter, r *http.Request) {
	box, seq, ok := addressed(w, r)
	if !ok {
		return
	}
	l, err := h.Letters.Get(box, seq)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	letter := letterOf(l)
	letter.Event = l.Event
	send(w, letter)
}

func (h *handler) drop(w http.ResponseWriter, r *http.Request) {
	box, seq, ok := addressed(w, r)
	if !ok {
		return
	}
	if err := h.Letters.Drop(box, seq); err != nil {
		h.failed(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) retry(w http.ResponseWriter, r *http.Request) {
	box, seq, ok := addressed(w, r)
	if !ok {
		return
	}
	if err := h.Retry(r.Context(), box, seq); err != nil {
		h.failed(w, r, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// addressed returns the letter that the path of a request names.
func addressed(w http.ResponseWriter, r *http.Request) (box deadletters.Box, seq uint64, ok bool) {
	if box, ok = boxOf(w, r); !ok {
		return box, 0, false
	}
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
	if err != nil {
		invalid(w, "the sequence number must be a number")
		return box, 0, false
	}
	return box, seq, true
}

// boxOf returns the sink and the stream that a request names.
func boxOf(w http.ResponseWriter, r *http.Request) (box deadletters.Box, ok bool) {
	box = deadletters.Box{Sink: r.PathValue("sink"), Stream: journal.Pushes}
	switch r.FormValue("stream") {
	case "", journal.Pushes.String():
	case journal.Pulls.String():
		box.Stream = journal.Pulls
	default:
		invalid(w, "stream must be pushes or pulls")
		return box, false
	}
	return box, true
}

// statuses are the statuses of errors that a client can act on.
var statuses = map[error]int{
	deadletters.ErrNotFound:  http.StatusNotFound,
	deadletters.ErrCursor:    http.StatusBadRequest,
	deadletters.ErrNoEvent:   http.StatusConflict,
	deadletters.ErrRetrying:  http.StatusConflict,
	notifier.ErrNotRetryable: http.StatusConflict,
	notifier.ErrTooLate:      http.StatusConflict,

	notifier.ErrUnknownSink:   http.StatusNotFound,
	runner.ErrBusy:            http.StatusConflict,
	runner.ErrNotPaused:       http.StatusConflict,
	operate.ErrNothingPending: http.StatusConflict,
	operate.ErrNotRewindable:  http.StatusConflict,
	operate.ErrPosition:       http.StatusBadRequest,
	journal.ErrGone:           http.StatusConflict,

	announce.ErrListCursor:  http.StatusBadRequest,
	announce.ErrPostURI:     http.StatusBadRequest,
	announce.ErrUnknownPost: http.StatusNotFound,
	announce.ErrPostDeleted: http.StatusConflict,
	announce.ErrRefused:     http.StatusConflict,
	announce.ErrBusy:        http.StatusServiceUnavailable,

	backfill.ErrNone:     http.StatusNotFound,
	notifier.ErrNotReady: http.StatusServiceUnavailable,
	ErrNotCounted:        http.StatusServiceUnavailable,
}

// failed sends the response for an error of a part of the process.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	for known, status := range statuses {
		if errors.Is(err, known) {
			fail(w, status, names[status], err.Error())
			return
		}
	}
	h.Log.Error("a request of the admin API failed", "method", r.Method, "path", r.URL.Path, "error", err)
	fail(w, http.StatusInternalServerError, "InternalError", err.Error())
}

// names are the names of errors by their status.
var names = map[int]string{
	http.StatusNotFound:   "NotFound",
	http.StatusConflict:   "Conflict",
	http.StatusBadRequest: "InvalidRequest",

	http.StatusServiceUnavailable: "Unavailable",
}

func send(w http.ResponseWriter, v any) { sendStatus(w, http.StatusOK, v) }

func sendStatus(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// A Problem is the response of a request that failed.
type Problem struct {
	Name    string `json:"error"`
	Message string `json:"message"`
}

// invalid is the response of an invalid request.
func invalid(w http.ResponseWriter, message string) {
	fail(w, http.StatusBadRequest, names[http.StatusBadRequest], message)
}

func fail(w http.ResponseWriter, status int, name, message string) {
	body, _ := json.Marshal(Problem{name, message}) // strings can always be encoded
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
