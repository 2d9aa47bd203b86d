package middleware

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// response settles its call when the first byte of the final answer is about
// to leave, and replaces the answer by a 503 if that fails.
type response struct {
	http.ResponseWriter
	call    *call
	begun   bool // the final status is decided
	refused bool // and it is our 503: what the handler still says is dropped
}

// begin settles the call for the status that is about to go out and reports
// whether the handler's answer may follow.
func (w *response) begin(status int) bool {
	if w.begun {
		return !w.refused
	}
	w.begun = true
	if err := w.call.settle(status); err != nil {
		w.refuse()
	}
	return !w.refused
}

// refuse answers 503 in the registry's own form. It leaves nothing that a
// client could take for an acknowledgement.
func (w *response) refuse() {
	w.refused = true
	for _, name := range []string{"Location", "Docker-Content-Digest", "Etag", "Content-Length"} {
		w.Header().Del(name)
	}
	_ = errcode.ServeJSON(w.ResponseWriter, unavailable(w.call))
}

func unavailable(c *call) errcode.Error {
	var said errcode.Error
	if errors.As(c.refused, &said) {
		return said
	}
	request := c.requestID
	what := "the manifest may be stored, but the push could not be recorded and is not acknowledged; push again"
	switch {
	case c.request.Method != http.MethodDelete:
	case c.refused != nil:
		what = "the delete could not be recorded; what could not be recorded was not deleted; try again"
	default:
		what = "it is deleted, but the registry could not record that yet"
	}
	return errcode.ErrorCodeUnavailable.WithMessage(
		fmt.Sprintf("%s (the registry's log has the reason, request %s)", what, request))
}

func (w *response) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.begin(status) {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *response) Write(p []byte) (int, error) {
	if !w.begin(http.StatusOK) {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if !w.begin(http.StatusOK) {
		return io.Copy(io.Discard, src)
	}
	return io.Copy(w.ResponseWriter, src)
}

func (w *response) Flush() { _ = w.FlushError() }

func (w *response) FlushError() error {
	w.begin(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach deadlines and the like.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
