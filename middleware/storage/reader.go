package storage

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// A Reader implements stored.Reader with the registry's storage, and only reads. The
// app's own storage is not accessible, so it is opened again at the first call, as
// garbage-collect does.
type Reader struct {
	ctx    context.Context // of the driver's background work
	config *configuration.Configuration

	mu     sync.Mutex
	opened distribution.Namespace
}

// NewReader returns a reader of the storage that a configuration names. ctx is of the driver's
// background work.
func NewReader(ctx context.Context, config *configuration.Configuration) *Reader {
	return &Reader{ctx: ctx, config: config}
}

// open opens the storage. If that fails the next call tries again.
func (s *Reader) open() (distribution.Namespace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	driver, err := factory.Create(s.ctx, s.config.Storage.Type(), maps.Clone(s.config.Storage.Parameters()))
	if err != nil {
		return nil, fmt.Errorf("open the registry's storage: %w", err)
	}
	namespace, err := storage.NewRegistry(s.ctx, driver)
	if err != nil {
		return nil, fmt.Errorf("open the registry's storage: %w", err)
	}
	s.opened = namespace
	return namespace, nil
}

// Has reports whether the repository has the manifest.
func (s *Reader) Has(ctx context.Context, repository, dgst string) (bool, error) {
	manifests, want, err := s.manifests(ctx, repository, dgst)
	if err != nil {
		return false, err
	}
	exists, err := manifests.Exists(ctx, want)
	if err != nil {
		return false, fmt.Errorf("look for %s@%s in storage: %w", repository, dgst, err)
	}
	return exists, nil
}

// Manifest returns a manifest as it is stored, or stored.ErrNotStored.
func (s *Reader) Manifest(ctx context.Context, repository, dgst string) (mediaType string, payload []byte, err error) {
	manifests, want, err := s.manifests(ctx, repository, dgst)
	if err != nil {
		return "", nil, err
	}
	manifest, err := manifests.Get(ctx, want)
	if err != nil && observe.IsGone(err) {
		return "", nil, stored.ErrNotStored
	}
	if err == nil {
		mediaType, payload, err = manifest.Payload()
	}
	if err != nil {
		return "", nil, fmt.Errorf("read %s@%s from storage: %w", repository, dgst, err)
	}
	return mediaType, payload, nil
}

// BlobSize returns the size of a blob in bytes, or stored.ErrNotStored.
func (s *Reader) BlobSize(ctx context.Context, repository, dgst string) (int64, error) {
	blobs, want, err := s.blobs(ctx, repository, dgst)
	if err != nil {
		return 0, err
	}
	desc, err := blobs.Stat(ctx, want)
	if err != nil && observe.IsGone(err) {
		return 0, stored.ErrNotStored
	}
	if err != nil {
		return 0, fmt.Errorf("look for blob %s@%s in storage: %w", repository, dgst, err)
	}
	return desc.Size, nil
}

// Blob returns a blob of at most the given size in bytes, or stored.ErrNotStored.
func (s *Reader) Blob(ctx context.Context, repository, dgst string, most int64) ([]byte, error) {
	size, err := s.BlobSize(ctx, repository, dgst)
	if err != nil {
		return nil, err
	}
	if size > most {
		return nil, stored.ErrNotStored
	}
	blobs, want, err := s.blobs(ctx, repository, dgst)
	if err != nil {
		return nil, err
	}
	content, err := blobs.Get(ctx, want)
	if err != nil && observe.IsGone(err) {
		return nil, stored.ErrNotStored
	}
	if err != nil {
		return nil, fmt.Errorf("read blob %s@%s from storage: %w", repository, dgst, err)
	}
	return content, nil
}

// Tagged returns the digest that a tag points at, or stored.ErrNotStored.
func (s *Reader) Tagged(ctx context.Context, repository, tag string) (string, error) {
	repo, err := s.repository(ctx, repository)
	if err != nil {
		return "", err
	}
	desc, err := repo.Tags(ctx).Get(ctx, tag)
	if err != nil && observe.IsGone(err) {
		return "", stored.ErrNotStored
	}
	if err != nil {
		return "", fmt.Errorf("look for %s:%s in storage: %w", repository, tag, err)
	}
	return desc.Digest.String(), nil
}

// Tags returns the tags of a repository, or stored.ErrNotStored.
func (s *Reader) Tags(ctx context.Context, repository string) ([]string, error) {
	repo, err := s.repository(ctx, repository)
	if err != nil {
		return nil, err
	}
	tags, err := repo.Tags(ctx).All(ctx)
	if err != nil && observe.IsGone(err) {
		return nil, stored.ErrNotStored
	}
	if err != nil {
		return nil, fmt.Errorf("list the tags of %s in storage: %w", repository, err)
	}
	return tags, nil
}

// Repositories calls visit with the name of each repository until ctx ends.
func (s *Reader) Repositories(ctx context.Context, visit func(string) error) error {
	namespace, err := s.open()
	if err != nil {
		return err
	}
	enumerator, ok := namespace.(distribution.RepositoryEnumerator)
	if !ok {
		return fmt.Errorf("storage of type %T cannot list its repositories", namespace)
	}
	return walk(ctx, visit, enumerator.Enumerate)
}

// Manifests calls visit with the digest of each manifest of a repository until ctx ends.
func (s *Reader) Manifests(ctx context.Context, repository string, visit func(string) error) error {
	repo, err := s.repository(ctx, repository)
	if err != nil {
		return err
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return fmt.Errorf("list the manifests of %s: %w", repository, err)
	}
	enumerator, ok := manifests.(distribution.ManifestEnumerator)
	if !ok {
		return fmt.Errorf("storage of type %T cannot list its manifests", manifests)
	}
	return walk(ctx, visit, func(ctx context.Context, visit func(string) error) error {
		return enumerator.Enumerate(ctx, func(d digest.Digest) error { return visit(d.String()) })
	})
}

// walk enumerates what storage has, if anything, until ctx ends, which not every storage driver
// does. It returns the error of visit as it is; drivers wrap it so that it cannot be recognized.
func walk(ctx context.Context, visit func(string) error, enumerate func(context.Context, func(string) error) error) error {
	var failed error
	err := enumerate(ctx, func(name string) error {
		if failed = ctx.Err(); failed == nil {
			failed = visit(name)
		}
		return failed
	})
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return ctx.Err()
	case observe.IsGone(err):
		return nil // nothing has been pushed yet
	}
	return err
}

func (s *Reader) repository(ctx context.Context, name string) (distribution.Repository, error) {
	named, err := reference.WithName(name)
	if err != nil {
		return nil, fmt.Errorf("look for %s in storage: %w", name, err)
	}
	namespace, err := s.open()
	if err != nil {
		return nil, err
	}
	repo, err := namespace.Repository(ctx, named)
	if err != nil {
		return nil, fmt.Errorf("look for %s in storage: %w", name, err)
	}
	return repo, nil
}

func (s *Reader) manifests(ctx context.Context, repository, dgst string) (distribution.ManifestService, digest.Digest, error) {
	want, err := digest.Parse(dgst)
	if err != nil {
		return nil, "", fmt.Errorf("look for %s@%s in storage: %w", repository, dgst, err)
	}
	repo, err := s.repository(ctx, repository)
	if err != nil {
		return nil, "", err
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("look for %s in storage: %w", repository, err)
	}
	return manifests, want, nil
}

func (s *Reader) blobs(ctx context.Context, repository, dgst string) (distribution.BlobStore, digest.Digest, error) {
	want, err := digest.Parse(dgst)
	if err != nil {
		return nil, "", fmt.Errorf("look for blob %s@%s in storage: %w", repository, dgst, err)
	}
	repo, err := s.repository(ctx, repository)
	if err != nil {
		return nil, "", err
	}
	return repo.Blobs(ctx), want, nil
}

// StoredSize returns the size of a blob or manifest of any repository, in bytes; 0 if it is
// not stored.
func (s *Reader) StoredSize(ctx context.Context, dgst string) (int64, error) {
	want, err := digest.Parse(dgst)
	if err != nil {
		return 0, nil // no such blob can be stored
	}
	namespace, err := s.open()
	if err != nil {
		return 0, err
	}
	desc, err := namespace.BlobStatter().Stat(ctx, want)
	if observe.IsGone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for blob %s in storage: %w", dgst, err)
	}
	return desc.Size, nil
}
