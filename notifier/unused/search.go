package unused

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

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

// Storage is the registry's storage; see stored.Reader for its methods.
type Storage interface {
	Manifest(ctx context.Context, repository, digest string) (mediaType string, payload []byte, err error)
	Tagged(ctx context.Context, repository, tag string) (digest string, err error)
	Tags(ctx context.Context, repository string) ([]string, error)
	Repositories(ctx context.Context, visit func(repository string) error) error
	Manifests(ctx context.Context, repository string, visit func(digest string) error) error
	// StoredSize returns the size of a blob or manifest of any repository, in bytes; 0 if it
	// is not stored.
	StoredSize(ctx context.Context, digest string) (int64, error)
}

// Uses are the last uses of the tags and manifests of a repository.
type Uses struct {
	lastuse.Known // in Rows
	Rows          map[lastuse.Key]lastuse.Use
}

// A Search searches the registry's storage. Its memory grows with the number of blobs, by
// about 50 bytes each, and with the largest repository.
type Search struct {
	Storage Storage
	// Uses returns the uses of a repository up to this moment: those at or after a time, all
	// if it is zero.
	Uses func(ctx context.Context, repository string, after time.Time) (Uses, error)
	// Progress, if not nil, is called after each step; total 0: not known.
	Progress func(done, total int64)
	Options
}

// An Item is an unused tag, or an unused manifest without a tag.
type Item struct {
	Repository string    `json:"repository"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest"`
	Manifest   bool      `json:"manifest"`        // the manifest is unused, too; false: another tag or image needs it
	Used       time.Time `json:"used,omitzero"`   // its last use; zero: none is known
	Pushed     time.Time `json:"pushed,omitzero"` // its last push; zero: before the pushes were known
}

// A Result lists what is unused.
type Result struct {
	Before  time.Time `json:"before"`            // what was pushed or used since then is not listed
	Since   time.Time `json:"since,omitzero"`    // uses before that are not known
	Missing string    `json:"missing,omitempty"` // which later uses are not known; empty: none
	Items   []Item    `json:"items"`
	Bytes   int64     `json:"bytes"` // that garbage collection would free without the items
}

// blobs are digests of blobs. Those that may be freed have the whole digest, the others a
// part of its hash, since there are many of them.
type blobs struct {
	kept  map[[16]byte]struct{}
	freed map[string]struct{}
}

func keyOf(digest string) (key [16]byte) {
	sum := sha256.Sum256([]byte(digest))
	copy(key[:], sum[:])
	return key
}

// Run searches all repositories. A blob counts as freed if no kept manifest of any
// repository has it.
func (s *Search) Run(ctx context.Context) (*Result, error) {
	var names []string
	if err := s.Storage.Repositories(ctx, func(name string) error { names = append(names, name); return ctx.Err() }); err != nil {
		return nil, err
	}
	result := &Result{Before: s.Before.UTC(), Items: []Item{}}
	found := blobs{map[[16]byte]struct{}{}, map[string]struct{}{}}
	for i, name := range names {
		r, err := s.searched(ctx, name, result)
		if err != nil {
			return nil, err
		}
		for digest, m := range r.manifests {
			m.marked(digest, func(blob string) {
				if m.kept {
					found.kept[keyOf(blob)] = struct{}{}
				} else {
					found.freed[blob] = struct{}{}
				}
			})
		}
		s.progress(i+1, len(names))
	}
	var err error
	result.Bytes, err = s.size(ctx, found)
	return result, err
}

// searched reads a repository and adds what is unused to the result.
func (s *Search) searched(ctx context.Context, name string, result *Result) (*repository, error) {
	r, err := s.read(ctx, name)
	if err != nil {
		return nil, err
	}
	if s.Repository != nil && !s.Repository(name) {
		r.keepAll()
		return r, nil
	}
	uses, err := s.Uses(ctx, name, time.Time{})
	if err != nil {
		return nil, err
	}
	if result.Since.Before(uses.Since) {
		result.Since = uses.Since.UTC()
	}
	if result.Missing == "" {
		result.Missing = uses.Missing
	}
	r.uses = uses.Rows
	result.Items = append(result.Items, r.items(r.decide(s.Options))...)
	return r, nil
}

func (s *Search) progress(done, total int) {
	if s.Progress != nil {
		s.Progress(int64(done), int64(total))
	}
}

// size adds up the blobs that are freed.
func (s *Search) size(ctx context.Context, found blobs) (int64, error) {
	var total atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(stored.MaxLookups)
	for blob := range found.freed {
		if _, kept := found.kept[keyOf(blob)]; kept {
			continue
		}
		g.Go(func() error {
			size, err := s.Storage.StoredSize(gctx, blob)
			total.Add(size)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, fmt.Errorf("add up what garbage collection would free: %w", err)
	}
	return total.Load(), nil
}

// items lists what is unused, sorted.
func (r *repository) items(kept map[string]bool) []Item {
	var items []Item
	add := func(tag, digest string, k lastuse.Key) {
		u := r.uses[k]
		items = append(items, Item{r.name, tag, digest, !r.manifests[digest].kept, u.LastUsed(), u.LastPushed()})
	}
	tagged := map[string]bool{}
	for tag, digest := range r.tags {
		tagged[digest] = true
		if !kept[tag] {
			add(tag, digest, lastuse.OfTag(tag))
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(r.manifests)) {
		if !r.manifests[digest].kept && !tagged[digest] {
			add("", digest, lastuse.OfDigest(digest))
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest)) })
	return items
}
