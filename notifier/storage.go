package notifier

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
)

// ErrNotStored says that the registry's storage does not have what was asked for.
var ErrNotStored = errors.New("not in the registry's storage")

// Storage is what the registry has stored. Events say that something may have
// changed; what is published is what storage has when the sinks look.
type Storage interface {
	// Manifest returns a manifest's media type and bytes, or ErrNotStored.
	Manifest(ctx context.Context, repository, digest string) (mediaType string, payload []byte, err error)
	// Has reports whether the repository has the manifest. An error means that
	// storage could not say.
	Has(ctx context.Context, repository, digest string) (bool, error)
	// Tagged returns the digest that a tag points at, or ErrNotStored.
	Tagged(ctx context.Context, repository, tag string) (digest string, err error)
	// Repositories and Manifests call visit with each name and each digest, until
	// it returns an error.
	Repositories(ctx context.Context, visit func(repository string) error) error
	Manifests(ctx context.Context, repository string, visit func(digest string) error) error
}

// lookups is how many questions storage is asked at a time: it can be an object
// store that takes some hundredths of a second for each.
const lookups = 16

// local reports whether the event is of an image in this registry's storage, and
// storage can be asked.
func (n *Notifier) local(e *Event) bool {
	return n.Storage != nil && e.Call == nil
}

// present asks for each of the events whether its repository has its manifest
// now. Without storage, and for what another registry told, the event is
// believed. Only events for which asked is true are looked up.
func (n *Notifier) present(ctx context.Context, events []sequenced, asked func(*Event) bool) ([]bool, error) {
	there := make([]bool, len(events))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, e := range events {
		if !asked(e.Event) {
			continue
		}
		if !n.local(e.Event) || e.Repository == "" {
			there[i] = e.Operation == opPush
			continue
		}
		g.Go(func() (err error) {
			there[i], err = n.Storage.Has(ctx, e.Repository, e.ManifestDigest)
			if errors.Is(err, errUnreadable) {
				there[i], err = e.Operation == opPush, nil
			}
			return err
		})
	}
	return there, g.Wait()
}

// pointing returns those of the tags that point at the digest now, in their
// order.
func (n *Notifier) pointing(ctx context.Context, repository, digest string, tags []string) ([]string, error) {
	points := make([]bool, len(tags))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, tag := range tags {
		if slices.Index(tags, tag) < i {
			continue
		}
		g.Go(func() error {
			at, err := n.Storage.Tagged(ctx, repository, tag)
			if err != nil && !errors.Is(err, ErrNotStored) && !errors.Is(err, errUnreadable) {
				return err
			}
			points[i] = at == digest || errors.Is(err, errUnreadable)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var still []string
	for i, tag := range tags {
		if points[i] {
			still = append(still, tag)
		}
	}
	return still, nil
}
