package main

import (
	"context"
	"fmt"
	"math/rand"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	maxLayers    = 20
	layerSize    = 256 // bytes
	repositories = 25
	pushers      = 4 // concurrent clients

	// The registry is away for about a second when it is killed.
	retryPush = 100 * time.Millisecond
)

// An image is what was pushed: which records and which post it should have.
type image struct {
	repository, tag, digest string
	layers                  []string // digests
}

// newImage returns the i-th image of a run, with 1 to 20 layers: an OCI image or a Docker
// image.
func newImage(seed uint64, i int) (image, v1.Image, error) {
	source := rand.NewSource(int64(seed)<<20 + int64(i))
	built, err := random.Image(layerSize, 1+rand.New(source).Int63n(maxLayers), random.WithSource(source))
	if err != nil {
		return image{}, nil, err
	}
	if i%2 == 0 {
		built = mutate.ConfigMediaType(mutate.MediaType(built, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	m := image{repository: fmt.Sprintf("oss/app-%d", i%repositories), tag: fmt.Sprintf("v%d", i)}
	digest, err := built.Digest()
	if err != nil {
		return image{}, nil, err
	}
	m.digest = digest.String()
	layers, err := built.Layers()
	if err != nil {
		return image{}, nil, err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return image{}, nil, err
		}
		m.layers = append(m.layers, digest.String())
	}
	return m, built, nil
}

// pushAll pushes n images to the registry at a host, evenly over the duration, each until
// the registry has acknowledged it.
func pushAll(ctx context.Context, host string, seed uint64, n int, duration time.Duration) ([]image, error) {
	images := make([]image, n)
	errs := make(chan error, pushers)
	next := make(chan int)
	transport := &http.Transport{MaxIdleConnsPerHost: pushers}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	for range pushers {
		all.Go(func() {
			for i := range next {
				m, err := push(ctx, host, seed, i, transport)
				if err != nil {
					errs <- err
					cancel()
					return
				}
				images[i] = m
			}
		})
	}
	begun := time.Now()
	for i := 0; i < n && ctx.Err() == nil; i++ {
		wait(ctx, time.Until(begun.Add(duration*time.Duration(i)/time.Duration(n))))
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	all.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return nil, err
	}
	return images, ctx.Err()
}

// push pushes the i-th image until it is acknowledged.
func push(ctx context.Context, host string, seed uint64, i int, transport http.RoundTripper) (image, error) {
	m, built, err := newImage(seed, i)
	if err != nil {
		return image{}, err
	}
	ref, err := name.NewTag(host+"/"+m.repository+":"+m.tag, name.Insecure)
	if err != nil {
		return image{}, err
	}
	for {
		err := remote.Write(ref, built, remote.WithContext(ctx), remote.WithTransport(transport), remote.WithJobs(1),
			remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
		if err == nil {
			return m, nil
		}
		if wait(ctx, retryPush); ctx.Err() != nil {
			return image{}, fmt.Errorf("push %s: %w", ref, err)
		}
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
