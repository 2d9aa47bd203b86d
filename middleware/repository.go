package middleware

import (
	"context"

	"github.com/distribution/distribution/v3"
)

// repository hands out manifest and tag services that note what they do.
// Blobs are none of its business. Options go inward untouched: some of the
// host's insist on its own types.
type repository struct {
	distribution.Repository
	handler *Handler
}

func (r *repository) Manifests(ctx context.Context, options ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	inner, err := r.Repository.Manifests(ctx, options...)
	if err != nil {
		return nil, err
	}
	return &manifests{ManifestService: inner, name: r.Named().Name(), handler: r.handler}, nil
}

func (r *repository) Tags(ctx context.Context) distribution.TagService {
	return &tags{TagService: r.Repository.Tags(ctx), name: r.Named().Name(), handler: r.handler}
}
