package observe

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Denied is the error for a client that may not push: 403 DENIED.
func Denied(message string) error { return errcode.ErrorCodeDenied.WithMessage(message) }

// RetryLater is the error for a client that may push again after a while: 503 with
// Retry-After.
func RetryLater(message string, after time.Duration) error {
	return &retryError{errcode.ErrorCodeUnavailable.WithMessage(message), after}
}

type retryError struct {
	error
	after time.Duration
}

func (e *retryError) Unwrap() error { return e.error }

// refusedPush is a push that Permit does not permit.
type refusedPush struct {
	answer errcode.Error
	after  time.Duration // of Retry-After; 0: none
}

// addTo adds the header fields of the answer.
func (p *refusedPush) addTo(h http.Header) {
	if p.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.after.Seconds()))))
	}
}

// permitted asks Permit about a request. An error replaces the answer of the request.
func (o *Observer) permitted(ctx context.Context, repository string) error {
	if o.Permit == nil {
		return nil
	}
	err := o.Permit(repository, actor(ctx))
	if err == nil {
		return nil
	}
	p := &refusedPush{answer: errcode.ErrorCodeDenied.WithMessage("the push is not permitted")}
	var retry *retryError
	if errors.As(err, &retry) {
		p.after = retry.after
	}
	errors.As(err, &p.answer)
	o.Log.Warn("push refused, and nothing was stored", "repository", repository, "actor", actor(ctx), "request", requestID(ctx), "error", p.answer.Message)
	if request := requestOf(ctx); request != nil {
		request.refusePush(p)
	}
	return p.answer
}

// uploads permits the uploads of blobs to a repository. The host has no way to pass an
// error of Create to the client, so the response is replaced.
type uploads struct {
	distribution.BlobStore
	name     string
	observer *Observer
}

func (u *uploads) Create(ctx context.Context, options ...distribution.BlobCreateOption) (distribution.BlobWriter, error) {
	if err := u.observer.permitted(ctx, u.name); err != nil {
		return nil, err
	}
	return u.BlobStore.Create(ctx, options...)
}
