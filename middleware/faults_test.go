package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tidings-dev/tidings/notifier"
)

var errFault = errors.New("fault")

// Whatever fails during a push, its intent ends exactly once: it is completed only
// if manifest and tag are stored, abandoned only if storage has refused the
// manifest, and otherwise released.
func TestPushFaults(t *testing.T) {
	t.Parallel()
	type inner = func() (digest.Digest, error)
	failingTag := func(inner func() error) error { return errFault }
	const intend, complete, release = "intend app:v1 IMAGE", "complete app:v1 IMAGE", "release app:v1 IMAGE"
	for _, c := range []struct {
		name         string
		inner, outer hooks
		status       int // 0: the connection is closed without a response
		want         []string
	}{
		{name: "put fails, not applied", status: 500, want: []string{intend, release},
			inner: hooks{put: func(context.Context, inner) (digest.Digest, error) { return "", errFault }}},
		{name: "put fails, but applied", status: 500, want: []string{intend, release},
			inner: hooks{put: func(_ context.Context, put inner) (digest.Digest, error) { _, _ = put(); return "", errFault }}},
		{name: "put is refused", status: 405, want: []string{intend, "abandon app:v1 IMAGE"},
			inner: hooks{put: func(context.Context, inner) (digest.Digest, error) { return "", distribution.ErrUnsupported }}},
		{name: "tag fails, not applied", status: 500, want: []string{intend, release}, inner: hooks{tag: failingTag}},
		{name: "tag fails, but applied", status: 500, want: []string{intend, release},
			inner: hooks{tag: func(tag func() error) error { _ = tag(); return errFault }}},
		{name: "an outer middleware fails after put", status: 500, want: []string{intend, release},
			outer: hooks{put: func(_ context.Context, put inner) (digest.Digest, error) { _, _ = put(); return "", errFault }}},
		{name: "an outer middleware fails after tag", status: 500, want: []string{intend, release},
			outer: hooks{tag: func(tag func() error) error { _ = tag(); return errFault }}},
		{name: "an outer middleware puts twice", status: 201, want: []string{intend, intend, complete, complete},
			outer: hooks{put: func(_ context.Context, put inner) (digest.Digest, error) { _, _ = put(); return put() }}},
		{name: "panic in put", want: []string{intend, release},
			inner: hooks{put: func(context.Context, inner) (digest.Digest, error) { panic(http.ErrAbortHandler) }}},
		{name: "panic between put and tag", want: []string{intend, release},
			outer: hooks{tag: func(func() error) error { panic(http.ErrAbortHandler) }}},
		{name: "panic after put and tag", want: []string{intend, complete},
			outer: hooks{tag: func(tag func() error) error { _ = tag(); panic(http.ErrAbortHandler) }}},
		{name: "panic before put", want: nil,
			outer: hooks{put: func(context.Context, inner) (digest.Digest, error) { panic(http.ErrAbortHandler) }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := serveObserved(t, &c.inner, &c.outer)
			image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
			r.recorder.take()
			want := c.want
			got, err := r.try(t.Context(), "PUT", "/v2/app/manifests/v1", image.body, "Content-Type", image.mediaType)
			if c.status == 0 {
				if err == nil {
					t.Errorf("status %d, want a closed connection", got.status)
				}
			} else {
				if err != nil || got.status != c.status {
					t.Errorf("status %d, %v; want %d", got.status, err, c.status)
				}
				want = append(want, fmt.Sprintf("status %d", c.status))
			}
			r.expect("push", want...)
		})
	}
}

// A push whose intent cannot be recorded is refused, and the manifest is not stored.
func TestPushIntentFails(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.recorder.intend = func(notifier.Push) error { return errDisk }
	r.recorder.take()
	got := r.push("app", "v1", image)
	r.expect("push", "refuse app:v1 IMAGE", "status 503")
	code, message := decodeError(t, got)
	if got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, "nothing was stored") || !strings.Contains(message, r.recorder.pushes[0].RequestID) {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if strings.Contains(string(got.body), "secret") {
		t.Errorf("the response has details that are for the log only: %s", got.body)
	}
	for _, reference := range []string{"v1", image.digest} {
		if a := r.do("GET", "/v2/app/manifests/"+reference, nil, "Accept", acceptAll); a.status != 404 {
			t.Errorf("%s is stored: status %d", reference, a.status)
		}
	}

	// Once the intent can be recorded, the same push succeeds.
	r.recorder.intend = nil
	if got := r.push("app", "v1", image); got.status != 201 {
		t.Errorf("second push: %d %s", got.status, got.body)
	}
}

// An errcode.Error of the recorder is the response.
func TestRecorderRefuses(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.recorder.intend = func(notifier.Push) error {
		return fmt.Errorf("check quota: %w", errcode.ErrorCodeDenied.WithMessage("5 of 4 GB"))
	}
	got := r.push("app", "v1", image)
	if code, message := decodeError(t, got); got.status != 403 || code != "DENIED" || message != "5 of 4 GB" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// A push that is stored and cannot be recorded is not acknowledged.
func TestPushNotRecorded(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.recorder.complete = func(context.Context, notifier.Push) error { return errDisk }
	r.recorder.take()
	got := r.push("app", "v1", image)
	r.expect("push", "intend app:v1 IMAGE", "complete app:v1 IMAGE", "status 503")
	code, message := decodeError(t, got)
	if got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, r.recorder.pushes[0].RequestID) {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if strings.Contains(string(got.body), "secret") {
		t.Errorf("the response has details that are for the log only: %s", got.body)
	}
	for _, name := range []string{"Location", "Docker-Content-Digest", "Etag"} {
		if v := got.header.Get(name); v != "" {
			t.Errorf("the 503 has a header %s: %s", name, v)
		}
	}
	if ct := got.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	r.recorder.complete = nil
	if got := r.push("app", "v1", image); got.status != 201 || got.header.Get("Docker-Content-Digest") != image.digest {
		t.Errorf("second push: %d %s", got.status, got.body)
	}
}

// A delete that happened and cannot be recorded is answered 503.
func TestDeleteNotRecorded(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	r.mustPush("app", "v2", image)
	r.recorder.completeDelete = func(context.Context, notifier.Delete) error { return errDisk }
	for _, reference := range []string{"v1", image.digest} {
		got := r.do("DELETE", "/v2/app/manifests/"+reference, nil)
		if code, message := decodeError(t, got); got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, "it is deleted") {
			t.Errorf("%s: got %d %s", reference, got.status, got.body)
		}
	}
	if n := len(r.recorder.deletes); n != 3 { // v1, the manifest, and its other tag v2
		t.Errorf("%d deletes reported, want 3", n)
	}
	if a := r.do("GET", "/v2/app/manifests/v2", nil, "Accept", acceptAll); a.status != 404 {
		t.Errorf("v2 still exists: status %d", a.status)
	}
}

// A delete whose intent cannot be recorded is refused, and nothing is deleted.
func TestDeleteIntentFails(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	r.recorder.intendDelete = func(notifier.Delete) error { return errDisk }
	for _, reference := range []string{"v1", image.digest} {
		got := r.do("DELETE", "/v2/app/manifests/"+reference, nil)
		code, message := decodeError(t, got)
		if got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, "not deleted") || strings.Contains(string(got.body), "secret") {
			t.Errorf("%s: got %d %s", reference, got.status, got.body)
		}
		if a := r.do("GET", "/v2/app/manifests/"+reference, nil, "Accept", acceptAll); a.status != 200 {
			t.Errorf("%s was deleted: status %d", reference, a.status)
		}
	}
}

// The intent of a delete that failed, and may have been applied, is released.
func TestDeleteFails(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{untag: func(_ context.Context, untag func() error) error { _ = untag(); return errFault }}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	r.recorder.take()
	if got := r.do("DELETE", "/v2/app/manifests/v1", nil); got.status != 500 {
		t.Errorf("status %d, want 500", got.status)
	}
	r.expect("delete", "release delete app:v1 ", "status 500")
}

// A delete that happened is recorded even if the request fails afterwards.
func TestLookupFailsAfterDelete(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{lookup: func() error { return errFault }}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	if got := r.do("DELETE", "/v2/app/manifests/"+image.digest, nil); got.status != 500 {
		t.Errorf("status %d, want 500", got.status)
	}
	r.expect("delete", "delete app: IMAGE", "status 500")

	// The response is the host's own error, not our 503.
	r.mustPush("app", "v1", image)
	r.recorder.completeDelete = func(context.Context, notifier.Delete) error { return errDisk }
	if got := r.do("DELETE", "/v2/app/manifests/"+image.digest, nil); got.status != 500 {
		t.Errorf("status %d, want 500", got.status)
	}
}

// A push whose client disconnects while it is stored is recorded, with a context
// that is not canceled and has a deadline.
func TestClientDisconnectsDuringPush(t *testing.T) {
	t.Parallel()
	storing := make(chan struct{})
	completed := make(chan error, 1)
	r := serveObserved(t, &hooks{put: func(ctx context.Context, put func() (digest.Digest, error)) (digest.Digest, error) {
		close(storing)
		<-ctx.Done()
		return put()
	}}, &hooks{})
	r.recorder.complete = func(ctx context.Context, _ notifier.Push) error {
		if _, bounded := ctx.Deadline(); !bounded {
			completed <- errors.New("the context has no deadline")
		}
		completed <- ctx.Err()
		return nil
	}
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	ctx, disconnect := context.WithCancel(t.Context())
	go func() {
		<-storing
		disconnect()
	}()
	if got, err := r.try(ctx, "PUT", "/v2/app/manifests/v1", image.body, "Content-Type", image.mediaType); err == nil {
		t.Fatalf("status %d, want a canceled request", got.status)
	}
	select {
	case err := <-completed:
		if err != nil {
			t.Errorf("completed with a context that has ended: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the push was not completed")
	}
}

// A delete whose client disconnects is recorded with a context that is not canceled.
func TestClientDisconnectsDuringDelete(t *testing.T) {
	t.Parallel()
	deleting := make(chan struct{})
	completed := make(chan error, 1)
	r := serveObserved(t, &hooks{untag: func(ctx context.Context, untag func() error) error {
		close(deleting)
		<-ctx.Done()
		return untag()
	}}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	r.recorder.completeDelete = func(ctx context.Context, _ notifier.Delete) error { completed <- ctx.Err(); return nil }
	ctx, disconnect := context.WithCancel(t.Context())
	go func() {
		<-deleting
		disconnect()
	}()
	if got, err := r.try(ctx, "DELETE", "/v2/app/manifests/v1", nil); err == nil {
		t.Fatalf("status %d, want a canceled request", got.status)
	}
	select {
	case err := <-completed:
		if err != nil {
			t.Errorf("completed with a context that has ended: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the delete was not completed")
	}
}

// Neither a Get that fails nor a request that panics after it is a pull.
func TestPullFaults(t *testing.T) {
	t.Parallel()
	type inner = func() (distribution.Manifest, error)
	var faults atomic.Pointer[func(inner) (distribution.Manifest, error)]
	through := func(get inner) (distribution.Manifest, error) { return (*faults.Load())(get) }
	r := serveObserved(t, &hooks{}, &hooks{get: through})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)

	fault := func(get inner) (distribution.Manifest, error) { _, _ = get(); return nil, errFault }
	faults.Store(&fault)
	if got := r.do("GET", "/v2/app/manifests/v1", nil, "Accept", acceptAll); got.status != 500 {
		t.Errorf("status %d, want 500", got.status)
	}
	r.expect("get fails", "status 500")

	cut := func(get inner) (distribution.Manifest, error) { _, _ = get(); panic(http.ErrAbortHandler) }
	faults.Store(&cut)
	if _, err := r.try(t.Context(), "GET", "/v2/app/manifests/v1", nil, "Accept", acceptAll); err == nil {
		t.Error("a response after a panic")
	}
	r.expect("panic")

	twice := func(get inner) (distribution.Manifest, error) { _, _ = get(); return get() }
	faults.Store(&twice)
	r.do("GET", "/v2/app/manifests/v1", nil, "Accept", acceptAll)
	r.expect("two Gets of one request", "GET app:v1 IMAGE", "status 200")
}

// Each of many concurrent requests is recorded exactly once.
func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "same", image)
	const workers, rounds = 8, 6
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := range rounds {
				tag := fmt.Sprintf("w%d-%d", w, i)
				for _, c := range []struct{ method, reference string }{{"PUT", tag}, {"GET", tag}, {"HEAD", "same"}} {
					body := image.body
					if c.method != "PUT" {
						body = nil
					}
					got, err := r.try(context.Background(), c.method, "/v2/app/manifests/"+c.reference, body, "Content-Type", image.mediaType, "Accept", acceptAll)
					if err != nil || got.status >= 300 {
						t.Errorf("%s %s: %d %v", c.method, c.reference, got.status, err)
					}
				}
			}
		})
	}
	wait.Wait()
	counts := map[string]int{}
	for _, line := range r.recorder.take() {
		kind, _, _ := strings.Cut(line, " ")
		counts[kind]++
	}
	for kind, want := range map[string]int{"intend": 48, "complete": 48, "GET": 48, "HEAD": 48, "status": 144, "abandon": 0} {
		if counts[kind] != want {
			t.Errorf("%s: %d, want %d", kind, counts[kind], want)
		}
	}

	// One request deletes all tags concurrently, and none of the deletes can be recorded.
	r.recorder.completeDelete = func(context.Context, notifier.Delete) error { return errDisk }
	if got := r.do("DELETE", "/v2/app/manifests/"+image.digest, nil); got.status != 503 {
		t.Errorf("status %d, want 503", got.status)
	}
	if n := len(r.recorder.deletes); n != workers*rounds+2 {
		t.Errorf("%d deletes reported, want %d", n, workers*rounds+2)
	}
}
