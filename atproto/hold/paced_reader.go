package hold

import (
	"io"
	"net/http"
	"time"
)

// uploadTimeout is for a whole body that is not JSON.
const uploadTimeout = 30 * time.Minute

// pacedReader gives each piece of a long body its own time limit, within one
// for the whole.
type pacedReader struct {
	body    io.Reader
	control *http.ResponseController
	pause   time.Duration
	until   time.Time
}

func newPacedReader(w http.ResponseWriter, body io.Reader, pause time.Duration) *pacedReader {
	return &pacedReader{body: body, control: http.NewResponseController(w), pause: pause, until: time.Now().Add(uploadTimeout)}
}

func (r *pacedReader) Read(b []byte) (int, error) {
	deadline := time.Now().Add(r.pause)
	if r.until.Before(deadline) {
		deadline = r.until
	}
	_ = r.control.SetReadDeadline(deadline) // not every reader can
	return r.body.Read(b)
}

// done lifts the limit: from here on it would end the handler.
func (r *pacedReader) done() { _ = r.control.SetReadDeadline(time.Time{}) }
