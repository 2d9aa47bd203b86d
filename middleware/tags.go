package middleware

import (
	"context"

	"github.com/distribution/distribution/v3"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tidings-dev/tidings/notifier"
)

// tags notes tags that are set and removed in one repository. A Get needs no
// note: without a Get of the manifest that follows it, nothing was delivered.
type tags struct {
	distribution.TagService
	name    string
	handler *Handler
}

// Tag completes a push by tag: the host puts first and tags then, and only
// both together are a push.
func (t *tags) Tag(ctx context.Context, tag string, desc v1.Descriptor) error {
	if err := t.TagService.Tag(ctx, tag, desc); err != nil {
		return err
	}
	if call := callOf(ctx); call != nil {
		call.tagged(tag, desc.Digest.String())
	}
	return nil
}

func (t *tags) Untag(ctx context.Context, tag string) error {
	return t.handler.remove(ctx, notifier.Delete{
		Repository: t.name,
		Tag:        tag,
		Actor:      actor(ctx),
		RequestID:  requestID(ctx),
	}, func() error { return t.TagService.Untag(ctx, tag) })
}
