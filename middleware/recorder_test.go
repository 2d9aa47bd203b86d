package middleware

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/notifier"
)

// fakeRecorder is an observe.Recorder that lists, in order, its method calls and, by
// means of statusWriter, the statuses that are sent.
type fakeRecorder struct {
	mu      sync.Mutex
	lines   []string
	alias   map[string]string // short names, by digest
	pushes  []notifier.Push
	pulls   []notifier.Pull
	deletes []notifier.Delete

	// Results of the methods; nil: they succeed unless the context has ended.
	intend         func(notifier.Push) error
	complete       func(context.Context, notifier.Push) error
	intendDelete   func(notifier.Delete) error
	completeDelete func(context.Context, notifier.Delete) error
}

func (rec *fakeRecorder) add(format string, args ...any) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	for dgst, name := range rec.alias {
		line = strings.ReplaceAll(line, dgst, name)
	}
	rec.lines = append(rec.lines, line)
}

// take returns the lines since the last take.
func (rec *fakeRecorder) take() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	lines := rec.lines
	rec.lines = nil
	return lines
}

func (rec *fakeRecorder) Intend(_ context.Context, p notifier.Push) (observe.Intent, error) {
	rec.mu.Lock()
	rec.pushes = append(rec.pushes, p)
	rec.mu.Unlock()
	if rec.intend != nil {
		if err := rec.intend(p); err != nil {
			rec.add("refuse %s:%s %s", p.Repository, p.Tag, p.Digest)
			return nil, err
		}
	}
	rec.add("intend %s:%s %s", p.Repository, p.Tag, p.Digest)
	return &fakeIntent{recorder: rec, push: p}, nil
}

func (rec *fakeRecorder) IntendDelete(_ context.Context, d notifier.Delete) (observe.Intent, error) {
	rec.mu.Lock()
	rec.deletes = append(rec.deletes, d)
	rec.mu.Unlock()
	if rec.intendDelete != nil {
		if err := rec.intendDelete(d); err != nil {
			rec.add("refuse delete %s:%s %s", d.Repository, d.Tag, d.Digest)
			return nil, err
		}
	}
	return &fakeDelete{rec, d}, nil
}

// fakeDelete is the intent of a delete.
type fakeDelete struct {
	recorder *fakeRecorder
	delete   notifier.Delete
}

func (i *fakeDelete) end(how string) {
	i.recorder.add("%s %s:%s %s", how, i.delete.Repository, i.delete.Tag, i.delete.Digest)
}

func (i *fakeDelete) Complete(ctx context.Context) error {
	i.end("delete")
	if i.recorder.completeDelete != nil {
		return i.recorder.completeDelete(ctx, i.delete)
	}
	return ctx.Err()
}

func (i *fakeDelete) Abandon() { i.end("abandon delete") }
func (i *fakeDelete) Release() { i.end("release delete") }

func (rec *fakeRecorder) Pull(p notifier.Pull) {
	rec.mu.Lock()
	rec.pulls = append(rec.pulls, p)
	rec.mu.Unlock()
	rec.add("%s %s:%s %s", p.Method, p.Repository, p.Tag, p.Digest)
}

// fakeIntent is the intent of a push.
type fakeIntent struct {
	recorder *fakeRecorder
	push     notifier.Push
	done     bool
}

func (i *fakeIntent) end(how string) {
	if i.done {
		how = "again " + how
	}
	i.done = true
	i.recorder.add("%s %s:%s %s", how, i.push.Repository, i.push.Tag, i.push.Digest)
}

func (i *fakeIntent) Complete(ctx context.Context) error {
	i.end("complete")
	if i.recorder.complete != nil {
		return i.recorder.complete(ctx, i.push)
	}
	return ctx.Err()
}

func (i *fakeIntent) Abandon() { i.end("abandon") }
func (i *fakeIntent) Release() { i.end("release") }

// statusWriter adds each status that is sent to the recorder's lines. It is the
// outermost handler's writer.
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
