package unused

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// Options say what is kept.
type Options struct {
	Before     time.Time                    // what was pushed or used since then is kept
	Repository func(repository string) bool // others are kept; nil: all are searched
	KeepTag    func(tag string) bool        // nil: none
	Keep       int                          // the newest tags of each repository are kept
}

// A Search searches the registry's storage.
type Search struct {
	Storage stored.Reader
	// Uses returns the last use of the tags and manifests of a repository.
	Uses func(ctx context.Context, repository string) (map[lastuse.Key]lastuse.Use, error)
	Options
}

// An Item is an unused tag, or an unused manifest without a tag.
type Item struct {
	Repository string    `json:"repository"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest"`
	Last       time.Time `json:"last,omitzero"` // its last use, else its push; zero: before the uses were known
}

// A Result lists what is unused.
type Result struct {
	Items []Item `json:"items"`
	Bytes int64  `json:"bytes"` // that garbage collection would free without the items
}

// Run searches all repositories. A blob counts as freed if no kept manifest of any
// repository has it.
func (s *Search) Run(ctx context.Context) (*Result, error) {
	result := &Result{Items: []Item{}}
	kept, freed := map[string]bool{}, map[string]string{} // freed: a repository that has the blob
	err := s.Storage.Repositories(ctx, func(name string) error {
		r, err := s.read(ctx, name)
		if err != nil {
			return err
		}
		if s.Repository != nil && !s.Repository(name) {
			r.keepAll()
		} else {
			if r.uses, err = s.Uses(ctx, name); err != nil {
				return err
			}
			result.Items = append(result.Items, r.items(r.decide(s.Options))...)
		}
		for digest, m := range r.manifests {
			for _, blob := range append(m.blobs, digest) {
				if m.kept {
					kept[blob] = true
				} else {
					freed[blob] = name
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for blob, name := range freed {
		if kept[blob] {
			continue
		}
		size, err := s.Storage.BlobSize(ctx, name, blob)
		if err != nil && !errors.Is(err, stored.ErrNotStored) {
			return nil, err
		}
		result.Bytes += size
	}
	return result, nil
}

// items lists what is unused, sorted.
func (r *repository) items(kept map[string]bool) []Item {
	var items []Item
	tagged := map[string]bool{}
	for tag, digest := range r.tags {
		tagged[digest] = true
		if !kept[tag] {
			items = append(items, Item{r.name, tag, digest, r.uses[lastuse.OfTag(tag)].Last()})
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(r.manifests)) {
		if !r.manifests[digest].kept && !tagged[digest] {
			items = append(items, Item{r.name, "", digest, r.uses[lastuse.OfDigest(digest)].Last()})
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest)) })
	return items
}
