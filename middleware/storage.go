package middleware

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// stored asks the registry's storage what became of a push whose process died
// before it knew. It opens the storage as garbage-collect does, and only when
// it is asked. The app's own is not to be had, nor needed: this reads.
type stored struct {
	open func() (distribution.Namespace, error)
}

func newStored(ctx context.Context, config *configuration.Configuration) *stored {
	return &stored{open: sync.OnceValues(func() (distribution.Namespace, error) {
		driver, err := factory.Create(ctx, config.Storage.Type(), maps.Clone(config.Storage.Parameters()))
		if err != nil {
			return nil, fmt.Errorf("open the registry's storage: %w", err)
		}
		namespace, err := storage.NewRegistry(ctx, driver)
		if err != nil {
			return nil, fmt.Errorf("open the registry's storage: %w", err)
		}
		return namespace, nil
	})}
}

// Has reports whether the push came to be: the repository has the manifest
// and, if there is a tag, the tag points at it. An error means that storage
// could not say.
func (s *stored) Has(ctx context.Context, repository, tag, dgst string) (bool, error) {
	name, err := reference.WithName(repository)
	if err != nil {
		return false, fmt.Errorf("look for %s in storage: %w", repository, err)
	}
	want, err := digest.Parse(dgst)
	if err != nil {
		return false, fmt.Errorf("look for %s@%s in storage: %w", repository, dgst, err)
	}
	namespace, err := s.open()
	if err != nil {
		return false, err
	}
	repo, err := namespace.Repository(ctx, name)
	if err != nil {
		return false, fmt.Errorf("look for %s in storage: %w", repository, err)
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return false, fmt.Errorf("look for %s in storage: %w", repository, err)
	}
	exists, err := manifests.Exists(ctx, want)
	if err != nil {
		return false, fmt.Errorf("look for %s@%s in storage: %w", repository, dgst, err)
	}
	if !exists || tag == "" {
		return exists, nil
	}
	desc, err := repo.Tags(ctx).Get(ctx, tag)
	if unknown := (distribution.ErrTagUnknown{}); errors.As(err, &unknown) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s:%s in storage: %w", repository, tag, err)
	}
	return desc.Digest == want, nil
}
