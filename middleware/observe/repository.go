package observe

import (
	"context"

	"github.com/distribution/distribution/v3"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/notifier"
)

// repository returns observed manifest and tag services. Blobs are not observed, except
// for the beginning of their uploads if Permit decides about it.
// Options are passed on unchanged: the host requires its own types for some.
type repository struct {
	distribution.Repository
	observer *Observer
}

func (r *repository) Manifests(ctx context.Context, options ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	inner, err := r.Repository.Manifests(ctx, options...)
	if err != nil {
		return nil, err
	}
	return &manifests{ManifestService: inner, name: r.Named().Name(), observer: r.observer}, nil
}

func (r *repository) Blobs(ctx context.Context) distribution.BlobStore {
	inner := r.Repository.Blobs(ctx)
	if r.observer.Permit == nil {
		return inner
	}
	return &uploads{BlobStore: inner, name: r.Named().Name(), observer: r.observer}
}

func (r *repository) Tags(ctx context.Context) distribution.TagService {
	return &tags{TagService: r.Repository.Tags(ctx), name: r.Named().Name(), observer: r.observer}
}

// tags reports the tags that are set and deleted in one repository. Get is not
// observed: every pull also gets the manifest.
type tags struct {
	distribution.TagService
	name     string
	observer *Observer
}

// Tag is the second half of a push by tag: the host first puts the manifest, then
// sets the tag.
func (t *tags) Tag(ctx context.Context, tag string, desc v1.Descriptor) error {
	if err := t.TagService.Tag(ctx, tag, desc); err != nil {
		return err
	}
	if r := requestOf(ctx); r != nil {
		r.tagged(tag, desc.Digest.String())
	}
	return nil
}

func (t *tags) Untag(ctx context.Context, tag string) error {
	return t.observer.delete(ctx, notifier.Delete{
		Repository: t.name,
		Tag:        tag,
		Actor:      actor(ctx),
		RequestID:  requestID(ctx),
	}, func() error { return t.TagService.Untag(ctx, tag) })
}
