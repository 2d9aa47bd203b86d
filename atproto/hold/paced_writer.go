package hold

import (
	"net/http"
	"time"
)

// pacedWriter gives each piece of an answer its own time limit, so that a
// client which stops reading is dropped and a slow one is not.
type pacedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	began   bool
}

func newPacedWriter(w http.ResponseWriter) *pacedWriter {
	return &pacedWriter{ResponseWriter: w, control: http.NewResponseController(w)}
}

func (w *pacedWriter) Write(b []byte) (int, error) {
	w.began = true
	_ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer can
	return w.ResponseWriter.Write(b)
}

// done sends what is left within the limit, then lifts it: the connection may
// go on to serve the registry.
func (w *pacedWriter) done() {
	_ = w.control.Flush()
	_ = w.control.SetWriteDeadline(time.Time{})
}
