// Package paced sends HTTP responses within time limits: the connection of a client that
// reads too slowly is closed.
package paced

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"time"
)

// minRate is the minimum rate at which a client must read a response after the first
// timeout, in bytes a second. It allows slow connections, but not clients that only
// occupy a slot.
const minRate = 16 << 10

// Handler serves each request of next with a Writer.
func Handler(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := NewWriter(w, timeout)
		next.ServeHTTP(out, r)
		out.Done()
	})
}

// Writer limits the time of each write, and the time of all writes in proportion to their
// size. A write that exceeds a limit ends the connection, or the HTTP/2 stream, and the
// handler's next write fails.
type Writer struct {
	http.ResponseWriter
	control  *http.ResponseController
	timeout  time.Duration // of one write
	start    time.Time     // of the first write; zero: none yet
	written  int64
	hijacked bool
}

// NewWriter returns a Writer with a timeout for each write. The caller must call Done
// when the response is complete.
func NewWriter(w http.ResponseWriter, timeout time.Duration) *Writer {
	return &Writer{ResponseWriter: w, control: http.NewResponseController(w), timeout: timeout}
}

// WriteHeader is limited, too: it may wait for the rest of the request's body, and send
// a header that is longer than the buffer.
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
	if w.start.IsZero() {
		w.start = now
	}
	w.written += int64(n)
	deadline := w.start.Add(w.timeout + time.Duration(float64(w.written)/minRate*float64(time.Second)))
	if one := now.Add(w.timeout); one.Before(deadline) {
		deadline = one
	}
	_ = w.control.SetWriteDeadline(deadline) // not every writer supports it
}

// Done sends buffered data within the limit, then removes the limit: the connection may
// serve further requests of the registry.
func (w *Writer) Done() {
	if w.hijacked {
		return
	}
	if w.start.IsZero() { // nothing was written
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
