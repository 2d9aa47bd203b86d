// Package paced sends HTTP responses within time limits, so that the connection of a
// client that stops reading, or nearly so, is closed.
package paced

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"time"
)

// leastRate is the rate at which a client must read a response after the first pause,
// in bytes a second. It allows slow clients, but none that only occupies a slot.
const leastRate = 16 << 10

// Handler serves each request of next with a Writer.
func Handler(next http.Handler, pause time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := NewWriter(w, pause)
		next.ServeHTTP(out, r)
		out.Done()
	})
}

// Writer gives each write a time limit, and all writes so far one that grows with their
// size. A late write ends the connection, or the HTTP/2 stream; the handler's next write
// fails.
type Writer struct {
	http.ResponseWriter
	control  *http.ResponseController
	pause    time.Duration // for one write
	since    time.Time     // the first write; zero: none yet
	written  int64
	hijacked bool
}

// NewWriter returns a Writer with the limit pause for one write. The caller must call
// Done when the response is complete.
func NewWriter(w http.ResponseWriter, pause time.Duration) *Writer {
	return &Writer{ResponseWriter: w, control: http.NewResponseController(w), pause: pause}
}

// WriteHeader is limited as well: it may wait for the rest of the request's body, and
// send a header that is longer than the buffer.
func (w *Writer) WriteHeader(status int) {
	w.limit(0)
	w.ResponseWriter.WriteHeader(status)
}

func (w *Writer) Write(b []byte) (int, error) {
	w.limit(len(b))
	return w.ResponseWriter.Write(b)
}

// FlushError sends buffered data.
func (w *Writer) FlushError() error {
	w.limit(0)
	return w.control.Flush()
}

// Flush implements http.Flusher.
func (w *Writer) Flush() { _ = w.FlushError() }

// limit sets the deadline for n more bytes.
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
	_ = w.control.SetWriteDeadline(due) // not every writer supports it
}

// Done sends buffered data within the limit, then removes the limit: the connection may
// serve further requests of the registry.
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

// Hijack implements http.Hijacker, without limits.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := w.control.Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	w.hijacked = true
	return conn, buffered, conn.SetWriteDeadline(time.Time{})
}

// Unwrap is for http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
