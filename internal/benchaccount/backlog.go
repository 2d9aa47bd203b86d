package main

import (
	"context"
	"fmt"
	"time"

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

	// pollInterval is how often the registry is asked what is pending.
	pollInterval = 50 * time.Millisecond
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

// drain starts the registry and measures how fast it delivers the backlog, from the first
// progress after its start.
func drain(ctx context.Context, r *pds.Registry, reference *pds.Server) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := r.Start(ctx); err != nil {
		return sample{}, err
	}
	defer r.Stop()
	all, _, err := r.Pending(ctx)
	if err != nil {
		return sample{}, err
	}
	from, err := waitBelow(ctx, r, all)
	if err != nil {
		return sample{}, err
	}
	begun, cpu := time.Now(), reference.CPU()
	if _, err := waitBelow(ctx, r, 1); err != nil {
		return sample{}, err
	}
	return sample{records: int(from) * layers, duration: time.Since(begun), cpu: reference.CPU() - cpu}, nil
}

// waitBelow waits until fewer than n events are pending, and returns how many are.
func waitBelow(ctx context.Context, r *pds.Registry, n uint64) (uint64, error) {
	for {
		pending, deadLetters, err := r.Pending(ctx)
		switch {
		case err != nil:
			return 0, err
		case deadLetters > 0:
			return 0, fmt.Errorf("%d events are dead letters", deadLetters)
		case pending < n:
			return pending, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d events are pending: %w", pending, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}
