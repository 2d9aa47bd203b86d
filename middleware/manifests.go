package middleware

import (
	"context"
	"errors"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/distribution/distribution/v3/manifest/schema2"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/notifier"
)

// manifests notes what is put, got and deleted in one repository.
type manifests struct {
	distribution.ManifestService
	name    string
	handler *Handler
}

// Put notes the push before it is stored, so that not even a crash right
// after the inner Put leaves an image that nobody heard of.
func (m *manifests) Put(ctx context.Context, manifest distribution.Manifest, options ...distribution.ManifestServiceOption) (digest.Digest, error) {
	call := callOf(ctx)
	if call == nil {
		m.handler.log.Error("a push was refused because it did not come through Handler.Wrap", "repository", m.name)
		return "", errcode.ErrorCodeUnavailable.WithMessage("tidings is set up wrongly: the app is not wrapped with middleware.Handler.Wrap, so nothing was stored")
	}
	mediaType, payload, err := manifest.Payload()
	if err != nil {
		return "", err
	}
	intended := notifier.Push{
		Repository: m.name,
		Tag:        tagOf(options),
		Digest:     digest.FromBytes(payload).String(),
		MediaType:  mediaType,
		Payload:    payload,
		Actor:      actor(ctx),
		RequestID:  requestID(ctx),
		Client:     client(call.request),
		UserAgent:  call.request.UserAgent(),
	}
	intended.Layers, intended.Children = listed(manifest)
	push, err := call.intend(ctx, intended)
	if err != nil {
		return "", m.refusal(ctx, intended, err)
	}
	dgst, err := m.ManifestService.Put(ctx, manifest, options...)
	call.put(push, err)
	return dgst, err
}

// refusal is what a client is told whose push cannot be noted; the reason
// stays in the log, for it can name files.
func (m *manifests) refusal(ctx context.Context, p notifier.Push, err error) error {
	var said errcode.Error
	if errors.As(err, &said) {
		return said
	}
	if ctx.Err() == nil {
		m.handler.metrics.unrecorded("push")
		m.handler.log.Error("a push was refused because it could not be noted; nothing was stored",
			"repository", p.Repository, "tag", p.Tag, "digest", p.Digest, "request", p.RequestID, "err", err)
	}
	return errcode.ErrorCodeUnavailable.WithMessage(
		"the push could not be recorded and nothing was stored; push again (the registry's log has the reason, request " + p.RequestID + ")")
}

func (m *manifests) Get(ctx context.Context, dgst digest.Digest, options ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	manifest, err := m.ManifestService.Get(ctx, dgst, options...)
	if err != nil {
		return manifest, err
	}
	if call := callOf(ctx); call != nil {
		pull := notifier.Pull{
			Method:     call.request.Method,
			Repository: m.name,
			Tag:        tagOf(options),
			Digest:     dgst.String(),
			Actor:      actor(ctx),
			Client:     client(call.request),
			UserAgent:  call.request.UserAgent(),
		}
		describe(&pull, manifest)
		call.pulled(pull)
	}
	return manifest, nil
}

// Delete notes the delete before it happens. One of a manifest that is not there
// is noted too: its records may be, from a delete that was interrupted.
func (m *manifests) Delete(ctx context.Context, dgst digest.Digest) error {
	return m.handler.remove(ctx, notifier.Delete{
		Repository: m.name,
		Digest:     dgst.String(),
		Actor:      actor(ctx),
		RequestID:  requestID(ctx),
	}, func() error { return m.ManifestService.Delete(ctx, dgst) })
}

func tagOf(options []distribution.ManifestServiceOption) string {
	for _, option := range options {
		if o, ok := option.(distribution.WithTagOption); ok {
			return o.Tag
		}
	}
	return ""
}

// listed is what the host has parsed already: how many layers an image lists,
// or which children an index does.
func listed(manifest distribution.Manifest) (layers int, children []string) {
	switch m := manifest.(type) {
	case *schema2.DeserializedManifest:
		return len(m.Layers), nil
	case *ocischema.DeserializedManifest:
		return len(m.Layers), nil
	case *ocischema.DeserializedImageIndex:
		return 0, digests(m.Manifests)
	case *manifestlist.DeserializedManifestList:
		children = make([]string, len(m.Manifests))
		for i := range m.Manifests {
			children[i] = m.Manifests[i].Digest.String()
		}
		return 0, children
	}
	return 0, nil
}

func digests(list []v1.Descriptor) []string {
	all := make([]string, len(list))
	for i := range list {
		all[i] = list[i].Digest.String()
	}
	return all
}

// describe fills in what the host has parsed already.
func describe(p *notifier.Pull, manifest distribution.Manifest) {
	p.MediaType, _, _ = manifest.Payload()
	switch m := manifest.(type) {
	case *schema2.DeserializedManifest:
		p.ConfigMediaType, p.Layers = m.Config.MediaType, m.Layers
	case *ocischema.DeserializedManifest:
		p.ConfigMediaType, p.Layers = m.Config.MediaType, m.Layers
	default:
		_, p.Children = listed(manifest)
	}
}
