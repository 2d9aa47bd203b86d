package observe

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/tidings-dev/tidings/notifier"
)

// tape is a Recorder that writes down what it is told about one push, and with
// recordedWriter which status is sent, in order.
type tape struct {
	mu       sync.Mutex
	lines    []string
	complete error // of Complete
}

func (t *tape) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(format, args...))
}

// take returns the lines since the last take.
func (t *tape) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	t.lines = nil
	return lines
}

func (t *tape) Intend(context.Context, notifier.Push) (Intent, error) {
	t.note("intend")
	return t, nil
}

func (t *tape) IntendDelete(context.Context, notifier.Delete) (Intent, error) {
	t.note("intend delete")
	return t, nil
}

func (t *tape) Pull(notifier.Pull) { t.note("pull") }

func (t *tape) Complete(context.Context) error {
	t.note("complete")
	return t.complete
}

func (t *tape) Abandon() { t.note("abandon") }
func (t *tape) Release() { t.note("release") }

// recordedWriter notes the statuses that are sent.
type recordedWriter struct {
	http.ResponseWriter
	tape  *tape
	noted bool
}

func (w *recordedWriter) WriteHeader(status int) {
	w.noted = w.noted || status >= 200
	w.tape.note("status %d", status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recordedWriter) Write(p []byte) (int, error) {
	if !w.noted {
		w.noted = true
		w.tape.note("status 200")
	}
	return w.ResponseWriter.Write(p)
}

func (w *recordedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
