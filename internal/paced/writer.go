// Package paced sends HTTP answers within time limits, so that a client which
// stops reading, or as good as stops, is dropped and not waited for.
package paced

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"time"
)

// leastRate is how fast a client takes an answer at least, in bytes a second
// after the first pause: a slow one is served, one that only holds a place is
// not.
const leastRate = 16 << 10

// Handler serves each request of next with a Writer.
func Handler(next http.Handler, pause time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := NewWriter(w, pause)
		next.ServeHTTP(out, r)
		out.Done()
	})
}

// Writer gives each piece of an answer its own time limit, and all so far one
// that grows with them. A piece that is late ends the connection, or the stream
// of HTTP/2; the handler's next write fails.
type Writer struct {
	http.ResponseWriter
	control  *http.ResponseController
	pause    time.Duration // for a piece
	since    time.Time     // of the first one; zero: it has not begun
	written  int64
	hijacked bool
}

// NewWriter returns a Writer that gives pause to a piece. Its caller calls Done
// when the answer is complete.
func NewWriter(w http.ResponseWriter, pause time.Duration) *Writer {
	return &Writer{ResponseWriter: w, control: http.NewResponseController(w), pause: pause}
}

// WriteHeader may have to wait for what is left of the request's body, and
// sends a header that is longer than the buffer.
func (w *Writer) WriteHeader(status int) {
	w.limit(0)
	w.ResponseWriter.WriteHeader(status)
}

func (w *Writer) Write(b []byte) (int, error) {
	w.limit(len(b))
	return w.ResponseWriter.Write(b)
}

// FlushError sends what is buffered.
func (w *Writer) FlushError() error {
	w.limit(0)
	return w.control.Flush()
}

// Flush is FlushError for those who ask for an http.Flusher.
func (w *Writer) Flush() { _ = w.FlushError() }

// limit is for n more bytes.
func (w *Writer) limit(n int) {
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	w.written += int64(n)
	due := w.since.Add(w.pause + time.Duration(float64(w.written)/leastRate*float64(time.Second)))
	if piece := now.Add(w.pause); piece.Before(due) {
		due = piece
	}
	_ = w.control.SetWriteDeadline(due) // not every writer can
}

// Done sends what is left within the limit, then lifts it: the connection may
// go on to serve the registry.
func (w *Writer) Done() {
	if w.hijacked {
		return
	}
	if w.since.IsZero() { // nothing was written
		w.Header().Set("Content-Length", "0")
	}
	_ = w.FlushError()
	_ = w.control.SetWriteDeadline(time.Time{})
}

// Hijack hands the connection over, without limits.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := w.control.Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	w.hijacked = true
	return conn, buffered, conn.SetWriteDeadline(time.Time{})
}

// Unwrap lets http.ResponseController reach deadlines of reading and the like.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
