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

// Whatever fails around a push, its intent ends exactly once: only a push that is
// whole is completed, only one that storage has refused is abandoned, and storage
// is asked about any other.
func TestPushFaults(t *testing.T) {
	t.Parallel()
	type inner = func() (digest.Digest, error)
	failingTag := func(inner func() error) error { return errFault }
	const intend, complete, release = "intend app:v1 IMAGE", "complete app:v1 IMAGE", "release app:v1 IMAGE"
	for _, c := range []struct {
		name         string
		inner, outer hooks
		status       int // 0: the connection is cut
		want         []string
	}{
		{name: "put fails, not applied", status: 500, want: []string{intend, release},
			inner: hooks{put: func(context.Context, inner) (digest.Digest, error) { return "", errFault }}},
		{name: "put fails, yet applied", status: 500, want: []string{intend, release},
			inner: hooks{put: func(_ context.Context, put inner) (digest.Digest, error) { _, _ = put(); return "", errFault }}},
		{name: "put is refused", status: 405, want: []string{intend, "abandon app:v1 IMAGE"},
			inner: hooks{put: func(context.Context, inner) (digest.Digest, error) { return "", distribution.ErrUnsupported }}},
		{name: "tag fails, not applied", status: 500, want: []string{intend, release}, inner: hooks{tag: failingTag}},
		{name: "tag fails, yet applied", status: 500, want: []string{intend, release},
			inner: hooks{tag: func(tag func() error) error { _ = tag(); return errFault }}},
		{name: "a middleware outside of ours fails after put", status: 500, want: []string{intend, release},
			outer: hooks{put: func(_ context.Context, put inner) (digest.Digest, error) { _, _ = put(); return "", errFault }}},
		{name: "a middleware outside of ours fails after tag", status: 500, want: []string{intend, release},
			outer: hooks{tag: func(tag func() error) error { _ = tag(); return errFault }}},
		{name: "a middleware outside of ours puts twice", status: 201, want: []string{intend, intend, complete, complete},
			outer: hooks{put: func(_ context.Context, put inner) (digest.Digest, error) { _, _ = put(); return put() }}},
		{name: "panic in put", want: []string{intend, release},
			inner: hooks{put: func(context.Context, inner) (digest.Digest, error) { panic(http.ErrAbortHandler) }}},
		{name: "panic between put and tag", want: []string{intend, release},
			outer: hooks{tag: func(func() error) error { panic(http.ErrAbortHandler) }}},
		{name: "panic when all is stored", want: []string{intend, complete},
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
					t.Errorf("status %d, want the connection cut", got.status)
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

// A push that cannot even be noted is not stored.
func TestNotNotedIsNotStored(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.recorder.intend = func(notifier.Push) error { return errDisk }
	r.recorder.take()
	got := r.push("app", "v1", image)
	r.expect("push", "refuse app:v1 IMAGE", "status 503")
	code, message := envelope(t, got)
	if got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, "nothing was stored") || !strings.Contains(message, r.recorder.pushes[0].RequestID) {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if strings.Contains(string(got.body), "secret") {
		t.Errorf("the client is told what belongs in the log: %s", got.body)
	}
	for _, reference := range []string{"v1", image.digest} {
		if a := r.do("GET", "/v2/app/manifests/"+reference, nil, "Accept", acceptAll); a.status != 404 {
			t.Errorf("%s is stored: status %d", reference, a.status)
		}
	}

	// and when the disk is well again, the same push passes
	r.recorder.intend = nil
	if got := r.push("app", "v1", image); got.status != 201 {
		t.Errorf("second try: %d %s", got.status, got.body)
	}
}

// A recorder may refuse for a reason of its own.
func TestRecorderRefuses(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.recorder.intend = func(notifier.Push) error {
		return fmt.Errorf("check quota: %w", errcode.ErrorCodeDenied.WithMessage("5 of 4 GB"))
	}
	got := r.push("app", "v1", image)
	if code, message := envelope(t, got); got.status != 403 || code != "DENIED" || message != "5 of 4 GB" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// A push that is stored but not recorded is not acknowledged.
func TestNotRecordedIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.recorder.complete = func(context.Context, notifier.Push) error { return errDisk }
	r.recorder.take()
	got := r.push("app", "v1", image)
	r.expect("push", "intend app:v1 IMAGE", "complete app:v1 IMAGE", "status 503")
	code, message := envelope(t, got)
	if got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, r.recorder.pushes[0].RequestID) {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if strings.Contains(string(got.body), "secret") {
		t.Errorf("the client is told what belongs in the log: %s", got.body)
	}
	for _, name := range []string{"Location", "Docker-Content-Digest", "Etag"} {
		if v := got.header.Get(name); v != "" {
			t.Errorf("%s: %s looks like an acknowledgement", name, v)
		}
	}
	if ct := got.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	r.recorder.complete = nil
	if got := r.push("app", "v1", image); got.status != 201 || got.header.Get("Docker-Content-Digest") != image.digest {
		t.Errorf("second try: %d %s", got.status, got.body)
	}
}

// A delete cannot be taken back; if it is not recorded, the client hears it.
func TestDeleteNotRecorded(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	r.mustPush("app", "v2", image)
	r.recorder.deleted = func(notifier.Delete) error { return errDisk }
	for _, reference := range []string{"v1", image.digest} {
		got := r.do("DELETE", "/v2/app/manifests/"+reference, nil)
		if code, message := envelope(t, got); got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, "it is deleted") {
			t.Errorf("%s: got %d %s", reference, got.status, got.body)
		}
	}
	if n := len(r.recorder.deletes); n != 3 { // v1; the manifest; and v2 with it
		t.Errorf("heard %d deletes, want 3", n)
	}
	if a := r.do("GET", "/v2/app/manifests/v2", nil, "Accept", acceptAll); a.status != 404 {
		t.Errorf("still there: status %d", a.status)
	}
}

// A delete that cannot be noted does not happen.
func TestDeleteNotNoted(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	r.recorder.undeletable = func(notifier.Delete) error { return errDisk }
	for _, reference := range []string{"v1", image.digest} {
		got := r.do("DELETE", "/v2/app/manifests/"+reference, nil)
		code, message := envelope(t, got)
		if got.status != 503 || code != "UNAVAILABLE" || !strings.Contains(message, "not deleted") || strings.Contains(string(got.body), "secret") {
			t.Errorf("%s: got %d %s", reference, got.status, got.body)
		}
		if a := r.do("GET", "/v2/app/manifests/"+reference, nil, "Accept", acceptAll); a.status != 200 {
			t.Errorf("%s is gone: status %d", reference, a.status)
		}
	}
}

// A delete of which nobody knows whether it happened is left to storage.
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

// A delete that happened is heard even if the request fails afterwards.
func TestLookupFailsAfterDelete(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{lookup: func() error { return errFault }}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	if got := r.do("DELETE", "/v2/app/manifests/"+image.digest, nil); got.status != 500 {
		t.Errorf("status %d, want 500", got.status)
	}
	r.expect("delete", "delete app: IMAGE", "status 500")

	// the host's own error is not hidden behind ours
	r.mustPush("app", "v1", image)
	r.recorder.deleted = func(notifier.Delete) error { return errDisk }
	if got := r.do("DELETE", "/v2/app/manifests/"+image.digest, nil); got.status != 500 {
		t.Errorf("status %d, want 500", got.status)
	}
}

// The client may leave while its push is stored; the push is heard all the
// same, under a context that is not cancelled.
func TestClientLeaves(t *testing.T) {
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
			completed <- errors.New("nothing bounds the wait")
		}
		completed <- ctx.Err()
		return nil
	}
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-storing
		leave()
	}()
	if got, err := r.try(ctx, "PUT", "/v2/app/manifests/v1", image.body, "Content-Type", image.mediaType); err == nil {
		t.Fatalf("status %d, want the client to have left", got.status)
	}
	select {
	case err := <-completed:
		if err != nil {
			t.Errorf("completed under a context that says %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the push is not completed")
	}
}

// The same of a delete.
func TestClientLeavesDelete(t *testing.T) {
	t.Parallel()
	removing := make(chan struct{})
	recorded := make(chan error, 1)
	r := serveObserved(t, &hooks{untag: func(ctx context.Context, untag func() error) error {
		close(removing)
		<-ctx.Done()
		return untag()
	}}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.mustPush("app", "v1", image)
	r.recorder.deleting = func(ctx context.Context) { recorded <- ctx.Err() }
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-removing
		leave()
	}()
	if got, err := r.try(ctx, "DELETE", "/v2/app/manifests/v1", nil); err == nil {
		t.Fatalf("status %d, want the client to have left", got.status)
	}
	select {
	case err := <-recorded:
		if err != nil {
			t.Errorf("recorded under a context that says %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the delete is not recorded")
	}
}

// A Get that fails, or a panic after it, is no pull.
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
		t.Error("an answer after a panic")
	}
	r.expect("panic")

	twice := func(get inner) (distribution.Manifest, error) { _, _ = get(); return get() }
	faults.Store(&twice)
	r.do("GET", "/v2/app/manifests/v1", nil, "Accept", acceptAll)
	r.expect("two gets are one pull", "GET app:v1 IMAGE", "status 200")
}

// Many at once: every answered request is heard, once.
func TestConcurrently(t *testing.T) {
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

	// one request whose untags run concurrently, each failing to be recorded
	r.recorder.deleted = func(notifier.Delete) error { return errDisk }
	if got := r.do("DELETE", "/v2/app/manifests/"+image.digest, nil); got.status != 503 {
		t.Errorf("status %d, want 503", got.status)
	}
	if n := len(r.recorder.deletes); n != workers*rounds+2 {
		t.Errorf("heard %d deletes, want %d", n, workers*rounds+2)
	}
}
