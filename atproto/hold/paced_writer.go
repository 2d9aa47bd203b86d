package hold

import (
	"net/http"
	"time"
)

// leastRate is how fast a client takes an answer at least, in bytes a second
// from writeTimeout on: a slow one is served, one that only holds a place is not.
const leastRate = 16 << 10

// pacedWriter gives each piece of an answer its own time limit, and all so far
// one that grows with them, so that a client which stops reading, or as good as
// stops, is dropped.
type pacedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	pause   time.Duration // for a piece
	since   time.Time     // of the first one; zero: it has not begun
	written int64
}

func newPacedWriter(w http.ResponseWriter, pause time.Duration) *pacedWriter {
	return &pacedWriter{ResponseWriter: w, control: http.NewResponseController(w), pause: pause}
}

func (w *pacedWriter) began() bool { return !w.since.IsZero() }

func (w *pacedWriter) Write(b []byte) (int, error) {
	now := time.Now()
	if !w.began() {
		w.since = now
	}
	w.written += int64(len(b))
	due := w.since.Add(w.pause + time.Duration(float64(w.written)/leastRate*float64(time.Second)))
	if piece := now.Add(w.pause); piece.Before(due) {
		due = piece
	}
	_ = w.control.SetWriteDeadline(due) // not every writer can
	return w.ResponseWriter.Write(b)
}

// done sends what is left within the limit, then lifts it: the connection may
// go on to serve the registry.
func (w *pacedWriter) done() {
	_ = w.control.Flush()
	_ = w.control.SetWriteDeadline(time.Time{})
}
