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
	// BlobSize returns how many bytes a blob of the repository has, or ErrNotStored.
	BlobSize(ctx context.Context, repository, digest string) (int64, error)
	// Blob returns a blob, or ErrNotStored, which a blob of more than most bytes is
	// as well.
	Blob(ctx context.Context, repository, digest string, most int64) ([]byte, error)
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
// believed. Only events for which asked is true are looked up. Where storage
// fails for an event, the answers are those for the events before it; without
// any that is an error.
func (n *Notifier) present(ctx context.Context, events []sequenced, asked func(*Event) bool) ([]bool, error) {
	there, failed := make([]bool, len(events)), make([]error, len(events))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, e := range events {
		if !asked(e.Event) {
			continue
		}
		if !n.local(e.Event) || e.Repository == "" {
			there[i] = e.Operation == opPush
			continue
		}
		g.Go(func() error {
			there[i], failed[i] = n.has(gctx, e.Event)
			return failed[i]
		})
	}
	if g.Wait() == nil {
		return there, nil
	}
	first := slices.IndexFunc(failed, func(err error) bool { return err != nil })
	if first > 0 {
		return there[:first], nil
	}
	// It may have failed since another did.
	var err error
	if there[0], err = n.has(ctx, events[0].Event); err != nil {
		return nil, err
	}
	return there[:1], nil
}

// has reports whether the event's repository has its manifest now. What storage
// can't read is as the event says.
func (n *Notifier) has(ctx context.Context, e *Event) (bool, error) {
	has, err := n.Storage.Has(ctx, e.Repository, e.ManifestDigest)
	if errors.Is(err, errUnreadable) {
		return e.Operation == opPush, nil
	}
	return has, err
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
