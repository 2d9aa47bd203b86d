package stored

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/notifier/event"
)

// ErrNotStored is returned for what the registry's storage does not have.
var ErrNotStored = errors.New("not in the registry's storage")

// A Reader reads the registry's storage. An event indicates that something may have changed;
// sinks publish what storage has when they handle the event. An error other
// than ErrNotStored means that storage did not give an answer.
type Reader interface {
	// Manifest returns a manifest's media type and bytes, or ErrNotStored.
	Manifest(ctx context.Context, repository, digest string) (mediaType string, payload []byte, err error)
	// Has reports whether the repository has the manifest.
	Has(ctx context.Context, repository, digest string) (bool, error)
	// BlobSize returns the size of a blob of the repository in bytes, or ErrNotStored.
	BlobSize(ctx context.Context, repository, digest string) (int64, error)
	// Blob returns a blob, or ErrNotStored, also if it has more than limit bytes.
	Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error)
	// Tagged returns the digest that a tag points to, or ErrNotStored.
	Tagged(ctx context.Context, repository, tag string) (digest string, err error)
	// Tags returns the tags of the repository, in any order, or ErrNotStored.
	Tags(ctx context.Context, repository string) ([]string, error)
	// Repositories and Manifests call visit with each name or digest, until it returns
	// an error.
	Repositories(ctx context.Context, visit func(repository string) error) error
	Manifests(ctx context.Context, repository string, visit func(digest string) error) error
}

// MaxLookups is how many requests are sent to storage at once: an object store can
// take some hundredths of a second for each.
const MaxLookups = 16

// Local reports whether an event is of an image in this registry's storage, and
// storage can be asked.
func (s *Checked) Local(e *event.Event) bool {
	return s != nil && e.Inbound == nil
}

// Present reports for each event that affects selects whether its repository has its
// manifest now. For events of other registries, and without storage, the answer is
// that of the event. If storage fails for an event, the result is cut off before
// it; if it fails for the first, that is an error.
func (s *Checked) Present(ctx context.Context, events []event.Sequenced, affects func(*event.Sequenced) bool) ([]bool, error) {
	found, failed := make([]bool, len(events)), make([]error, len(events))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(MaxLookups)
	for i, e := range events {
		if !affects(&e) {
			continue
		}
		if !s.Local(e.Event) || e.Repository == "" {
			found[i] = e.Operation == event.OpPush
			continue
		}
		g.Go(func() error {
			found[i], failed[i] = s.hasManifest(gctx, e.Event)
			return failed[i]
		})
	}
	if g.Wait() == nil {
		return found, nil
	}
	first := slices.IndexFunc(failed, func(err error) bool { return err != nil })
	if first > 0 {
		return found[:first], nil
	}
	// It may have failed only because another request did, which ended gctx.
	var err error
	if found[0], err = s.hasManifest(ctx, events[0].Event); err != nil {
		return nil, err
	}
	return found[:1], nil
}

// hasManifest reports whether the event's repository has its manifest now. If storage
// can't read it, the answer is that of the event.
func (s *Checked) hasManifest(ctx context.Context, e *event.Event) (bool, error) {
	has, err := s.Has(ctx, e.Repository, e.ManifestDigest)
	if errors.Is(err, ErrUnreadable) {
		return e.Operation == event.OpPush, nil
	}
	return has, err
}

// TagsOf returns those of the tags that point to the digest now, in their order.
func (s *Checked) TagsOf(ctx context.Context, repository, digest string, tags []string) ([]string, error) {
	points := make([]bool, len(tags))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(MaxLookups)
	for i, tag := range tags {
		if slices.Index(tags, tag) < i {
			continue
		}
		g.Go(func() error {
			target, err := s.Tagged(ctx, repository, tag)
			if err != nil && !errors.Is(err, ErrNotStored) && !errors.Is(err, ErrUnreadable) {
				return err
			}
			points[i] = target == digest || errors.Is(err, ErrUnreadable)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var left []string
	for i, tag := range tags {
		if points[i] {
			left = append(left, tag)
		}
	}
	return left, nil
}
