package middleware

import (
	"context"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	app "github.com/distribution/distribution/v3/registry/handlers"
	repositorymiddleware "github.com/distribution/distribution/v3/registry/middleware/repository"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// hooks are called instead of the methods of the repository that a test's
// middleware wraps, to inject faults. There is one such middleware inside of ours
// ("inner") and one outside ("outer").
type hooks struct {
	put    func(ctx context.Context, inner func() (digest.Digest, error)) (digest.Digest, error)
	get    func(inner func() (distribution.Manifest, error)) (distribution.Manifest, error)
	tag    func(inner func() error) error
	untag  func(ctx context.Context, inner func() error) error
	lookup func() error
}

var hooked sync.Map // hookKey → *hooks

type hookKey struct {
	side   string // "inner" or "outer"
	config *configuration.Configuration
}

// hook returns the constructor of the middleware on one side.
func hook(side string) repositorymiddleware.InitFunc {
	return func(ctx context.Context, repo distribution.Repository, _ map[string]any) (distribution.Repository, error) {
		found, _ := hooked.Load(hookKey{side, ctx.(*app.App).Config})
		if h, ok := found.(*hooks); ok {
			return &hookedRepository{repo, h}, nil
		}
		return repo, nil
	}
}

type hookedRepository struct {
	distribution.Repository
	hooks *hooks
}

func (r *hookedRepository) Manifests(ctx context.Context, o ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	m, err := r.Repository.Manifests(ctx, o...)
	return &hookedManifests{m, r.hooks}, err
}

func (r *hookedRepository) Tags(ctx context.Context) distribution.TagService {
	return &hookedTags{r.Repository.Tags(ctx), r.hooks}
}

type hookedManifests struct {
	distribution.ManifestService
	hooks *hooks
}

func (m *hookedManifests) Put(ctx context.Context, manifest distribution.Manifest, o ...distribution.ManifestServiceOption) (digest.Digest, error) {
	inner := func() (digest.Digest, error) { return m.ManifestService.Put(ctx, manifest, o...) }
	if m.hooks.put != nil {
		return m.hooks.put(ctx, inner)
	}
	return inner()
}

func (m *hookedManifests) Get(ctx context.Context, dgst digest.Digest, o ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	inner := func() (distribution.Manifest, error) { return m.ManifestService.Get(ctx, dgst, o...) }
	if m.hooks.get != nil {
		return m.hooks.get(inner)
	}
	return inner()
}

type hookedTags struct {
	distribution.TagService
	hooks *hooks
}

func (t *hookedTags) Tag(ctx context.Context, tag string, desc v1.Descriptor) error {
	inner := func() error { return t.TagService.Tag(ctx, tag, desc) }
	if t.hooks.tag != nil {
		return t.hooks.tag(inner)
	}
	return inner()
}

func (t *hookedTags) Untag(ctx context.Context, tag string) error {
	inner := func() error { return t.TagService.Untag(ctx, tag) }
	if t.hooks.untag != nil {
		return t.hooks.untag(ctx, inner)
	}
	return inner()
}

func (t *hookedTags) Lookup(ctx context.Context, desc v1.Descriptor) ([]string, error) {
	if t.hooks.lookup != nil {
		if err := t.hooks.lookup(); err != nil {
			return nil, err
		}
	}
	return t.TagService.Lookup(ctx, desc)
}
