package main

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

const (
	repositories = 20
	pushers      = 4 // concurrent clients
)

// paused is in the environment of a registry that writes nothing to the account: it has
// less disk space than it needs.
const paused = "REGISTRY_MIDDLEWARE_REPOSITORY_0_OPTIONS_RESERVE=1000TiB"

// pushBacklog pushes images to the paused registry, and stops it. All images have the same
// layers, and differ in their manifests.
func pushBacklog(ctx context.Context, r *pds.Registry, pushes int) error {
	if err := r.Start(ctx, paused); err != nil {
		return err
	}
	defer r.Stop()
	base, err := random.Image(1000, layers)
	if err != nil {
		return err
	}
	tag := func(i int) (name.Tag, error) {
		return name.NewTag(fmt.Sprintf("%s/oss/app-%d:v%d", r.Host, i%repositories, i), name.Insecure)
	}
	for i := range repositories { // the layers
		ref, err := tag(i)
		if err != nil {
			return err
		}
		if err := remote.Write(ref, image(base, i), remote.WithContext(ctx)); err != nil {
			return err
		}
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(pushers)
	for i := repositories; i < pushes; i++ {
		all.Go(func() error {
			ref, err := tag(i)
			if err != nil {
				return err
			}
			return remote.Put(ref, image(base, i), remote.WithContext(ctx))
		})
	}
	return all.Wait()
}

// image is the i-th image.
func image(base v1.Image, i int) v1.Image {
	return mutate.Annotations(base, map[string]string{"number": fmt.Sprint(i)}).(v1.Image)
}

// drain starts the registry and waits until it has delivered the backlog.
func drain(ctx context.Context, r *pds.Registry) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := r.Start(ctx); err != nil {
		return err
	}
	defer r.Stop()
	return r.WaitDrained(ctx)
}
