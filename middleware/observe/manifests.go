package observe

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

// manifests reports the manifests that are put, read and deleted in one repository.
type manifests struct {
	distribution.ManifestService
	name     string
	observer *Observer
}

// Put records the intent before the manifest is stored, so that a crash after the
// inner Put cannot leave an image without an event.
func (m *manifests) Put(ctx context.Context, manifest distribution.Manifest, options ...distribution.ManifestServiceOption) (digest.Digest, error) {
	request := requestOf(ctx)
	if request == nil {
		m.observer.Log.Error("push refused: the request did not pass through middleware.Handler.Wrap", "repository", m.name)
		return "", errcode.ErrorCodeUnavailable.WithMessage("tidings is not installed correctly: the app is not wrapped with middleware.Handler.Wrap, so nothing was stored")
	}
	if err := m.observer.permitted(ctx, m.name); err != nil {
		return "", err
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
		Client:     client(request.Request),
		UserAgent:  request.UserAgent(),
	}
	intended.Listed, intended.Children = listed(manifest)
	intended.Layers = len(intended.Listed)
	push, err := request.intend(ctx, intended)
	if err != nil {
		return "", m.refusal(ctx, intended, err)
	}
	dgst, err := m.ManifestService.Put(ctx, manifest, options...)
	request.put(push, err)
	return dgst, err
}

// refusal is the error for a client whose push cannot be recorded. The reason goes
// to the log only, since it can name files.
func (m *manifests) refusal(ctx context.Context, p notifier.Push, err error) error {
	var answer errcode.Error
	if errors.As(err, &answer) {
		return answer
	}
	if ctx.Err() == nil {
		m.observer.Unrecorded("push")
		m.observer.Log.Error("push refused: it could not be recorded, and nothing was stored",
			"repository", p.Repository, "tag", p.Tag, "digest", p.Digest, "request", p.RequestID, "error", err)
	}
	return errcode.ErrorCodeUnavailable.WithMessage(
		"the push could not be recorded and nothing was stored; push again (the registry's log has the reason, request " + p.RequestID + ")")
}

func (m *manifests) Get(ctx context.Context, dgst digest.Digest, options ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	manifest, err := m.ManifestService.Get(ctx, dgst, options...)
	if err != nil {
		return manifest, err
	}
	if request := requestOf(ctx); request != nil {
		pull := notifier.Pull{
			Method:     request.Method,
			Repository: m.name,
			Tag:        tagOf(options),
			Digest:     dgst.String(),
			Actor:      actor(ctx),
			Client:     client(request.Request),
			UserAgent:  request.UserAgent(),
		}
		describe(&pull, manifest)
		request.pulled(pull)
	}
	return manifest, nil
}

// Delete records the delete, also of a manifest that does not exist: a delete that
// was interrupted may have left its records.
func (m *manifests) Delete(ctx context.Context, dgst digest.Digest) error {
	return m.observer.delete(ctx, notifier.Delete{
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

// listed returns the layers of an image, or the children of an index, as the host has
// parsed them.
func listed(manifest distribution.Manifest) (layers []v1.Descriptor, children []string) {
	switch m := manifest.(type) {
	case *schema2.DeserializedManifest:
		return m.Layers, nil
	case *ocischema.DeserializedManifest:
		return m.Layers, nil
	case *ocischema.DeserializedImageIndex:
		return nil, digests(m.Manifests)
	case *manifestlist.DeserializedManifestList:
		children = make([]string, len(m.Manifests))
		for i := range m.Manifests {
			children[i] = m.Manifests[i].Digest.String()
		}
		return nil, children
	}
	return nil, nil
}

func digests(list []v1.Descriptor) []string {
	all := make([]string, len(list))
	for i := range list {
		all[i] = list[i].Digest.String()
	}
	return all
}

// describe adds the facts that the host has parsed already.
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
