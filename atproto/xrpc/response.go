package xrpc

import (
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
)

// Empty is the result of a procedure that has no output.
type Empty struct{}

// Stream is a result that is not JSON.
type Stream struct {
	ContentType string
	Write       func(io.Writer) error
}

// AllowBrowsers lets scripts of any site call: no method depends on cookies.
func AllowBrowsers(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "*")
}

// preflight answers the OPTIONS request of a browser.
func preflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "*, Authorization")
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

// AllowGET reports whether a request for a file is a GET or HEAD, and answers it
// otherwise. Scripts of any site may read the file.
func AllowGET(w http.ResponseWriter, r *http.Request) bool {
	AllowBrowsers(w.Header())
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return true
	case http.MethodOptions:
		preflight(w)
		return false
	}
	w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	return false
}

func (s *Server) respond(w http.ResponseWriter, r *http.Request, nsid string, result any) {
	switch result := result.(type) {
	case Stream:
		s.stream(w, r, nsid, result)
	case Empty:
	default:
		WriteJSON(w, http.StatusOK, result, s.Logger)
	}
}

// WriteError writes an error response.
func WriteError(w http.ResponseWriter, e *Error, lg *slog.Logger) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	WriteJSON(w, e.Status, map[string]string{"error": e.Name, "message": e.Message}, lg)
}

// WriteJSON writes a JSON response.
func WriteJSON(w http.ResponseWriter, status int, value any, lg *slog.Logger) {
	body, err := json.Marshal(value)
	if err != nil {
		lg.Error("encode response", "error", err)
		http.Error(w, errInternal.Message, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

func (s *Server) fail(w http.ResponseWriter, nsid string, err error) {
	e := s.asError(err)
	if e.Status >= http.StatusInternalServerError && e.Status != http.StatusNotImplemented && !e.Quiet {
		s.Logger.Error("request failed", "method", nsid, "error", err)
	}
	WriteError(w, e, s.Logger)
}

// stream writes a Stream. If it fails after the first byte, the connection is
// closed, so that the client cannot take a part for the whole.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, nsid string, result Stream) {
	w.Header().Set("Content-Type", result.ContentType)
	if r.Method == http.MethodHead {
		return
	}
	out := startWatcher{Writer: w}
	err := result.Write(&out)
	if err == nil {
		return
	}
	if !out.started {
		w.Header().Del("Content-Type")
		s.fail(w, nsid, err)
		return
	}
	s.Logger.Warn("response interrupted", "method", nsid, "error", err)
	panic(http.ErrAbortHandler)
}

// startWatcher notes whether anything was written.
type startWatcher struct {
	io.Writer
	started bool
}

func (w *startWatcher) Write(p []byte) (int, error) {
	w.started = true
	return w.Writer.Write(p)
}
