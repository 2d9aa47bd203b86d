package observe

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// response completes the events of its request before the first byte of the final
// answer is sent, and replaces the answer by a 503 if that fails.
type response struct {
	http.ResponseWriter
	request *request
	begun   bool // the final status is decided
	refused bool // the final response is our 503; the handler's is discarded
}

// begin completes the events for the status that is about to be sent, and reports
// whether the handler's answer may follow.
func (w *response) begin(status int) bool {
	if w.begun {
		return !w.refused
	}
	w.begun = true
	if err := w.request.answer(status); err != nil {
		w.refuse()
	}
	return !w.refused
}

// refuse sends a 503 in the registry's error format, without the headers that
// acknowledge a push.
func (w *response) refuse() {
	w.refused = true
	for _, name := range []string{"Location", "Docker-Content-Digest", "Etag", "Content-Length"} {
		w.Header().Del(name)
	}
	if forbidden := w.request.forbidden; forbidden != nil && len(w.request.pushes) == 0 {
		forbidden.addTo(w.Header())
		_ = errcode.ServeJSON(w.ResponseWriter, forbidden.answer)
		return
	}
	_ = errcode.ServeJSON(w.ResponseWriter, unavailable(w.request))
}

func unavailable(r *request) errcode.Error {
	var answer errcode.Error
	if errors.As(r.refused, &answer) {
		return answer
	}
	request := r.requestID
	message := "the manifest may be stored, but the push could not be recorded and is not acknowledged; push again"
	switch {
	case r.Method != http.MethodDelete:
	case r.refused != nil:
		message = "the delete could not be recorded, and tags or manifests whose delete could not be recorded were not deleted; try again"
	default:
		message = "it is deleted, but the registry could not record that yet"
	}
	return errcode.ErrorCodeUnavailable.WithMessage(
		fmt.Sprintf("%s (the registry's log has the reason, request %s)", message, request))
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
