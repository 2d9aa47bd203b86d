package observe

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/tidings-dev/tidings/notifier"
)

// fakeRecorder is a Recorder and Intent that lists its method calls and, by means
// of statusWriter, the statuses that are sent, in order.
type fakeRecorder struct {
	mu       sync.Mutex
	lines    []string
	complete error // returned by Complete
}

func (f *fakeRecorder) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, fmt.Sprintf(format, args...))
}

// take returns the lines since the last take.
func (f *fakeRecorder) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := f.lines
	f.lines = nil
	return lines
}

func (f *fakeRecorder) Intend(context.Context, notifier.Push) (Intent, error) {
	f.add("intend")
	return f, nil
}

func (f *fakeRecorder) IntendDelete(context.Context, notifier.Delete) (Intent, error) {
	f.add("intend delete")
	return f, nil
}

func (f *fakeRecorder) Pull(notifier.Pull) { f.add("pull") }

func (f *fakeRecorder) Complete(context.Context) error {
	f.add("complete")
	return f.complete
}

func (f *fakeRecorder) Abandon() { f.add("abandon") }
func (f *fakeRecorder) Release() { f.add("release") }

// statusWriter adds the statuses that are sent to the recorder's lines.
type statusWriter struct {
	http.ResponseWriter
	recorder *fakeRecorder
	written  bool
}

func (w *statusWriter) WriteHeader(status int) {
	w.written = w.written || status >= 200
	w.recorder.add("status %d", status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if !w.written {
		w.written = true
		w.recorder.add("status 200")
	}
	return w.ResponseWriter.Write(p)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
