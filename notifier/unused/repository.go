package unused

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// How it is decided what is kept
//
//  1. A tag is kept if it was pushed or used in the period, matches KeepTag, or is one of
//     the newest. Its manifest is kept with it. A manifest that was pushed or used in the
//     period is kept.
//  2. With a manifest are kept the children that it lists, and what refers to it: manifests
//     whose subject it is, and tags of the referrers tag schema that name its digest.
//  3. A kept manifest that no kept tag leads to keeps the tags that lead to it: it was used
//     by digest, and without them "garbage-collect --delete-untagged" would delete it.
//
// Everything else is unused. A manifest that can't be read stops the search, since it is not
// known what it lists.

// repository is the content of a repository.
type repository struct {
	name      string
	tags      map[string]string // digest of each tag
	manifests map[string]*manifest
	uses      map[lastuse.Key]lastuse.Use

	referrers    map[string][]string // manifests by the digest of their subject
	referrerTags map[string][]string // tags of the referrers tag schema, by their prefix
}

type manifest struct {
	children []string
	subject  string
	blobs    []string // config and layers
	kept     bool
	tagged   bool // a kept tag leads to it
}

func (s *Search) read(ctx context.Context, name string) (*repository, error) {
	r := &repository{
		name: name, tags: map[string]string{}, manifests: map[string]*manifest{},
		referrers: map[string][]string{}, referrerTags: map[string][]string{},
	}
	if err := r.readManifests(ctx, s.Storage); err != nil {
		return nil, err
	}
	return r, r.readTags(ctx, s.Storage)
}

func (r *repository) readManifests(ctx context.Context, storage Storage) error {
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(stored.MaxLookups)
	err := storage.Manifests(gctx, r.name, func(digest string) error {
		g.Go(func() error {
			mediaType, payload, err := storage.Manifest(gctx, r.name, digest)
			if errors.Is(err, stored.ErrNotStored) {
				return nil // deleted meanwhile
			}
			if err != nil {
				return err
			}
			m, err := parse(mediaType, payload)
			if err != nil {
				return fmt.Errorf("read %s@%s: %w", r.name, digest, err)
			}
			mu.Lock()
			defer mu.Unlock()
			r.manifests[digest] = m
			if m.subject != "" {
				r.referrers[m.subject] = append(r.referrers[m.subject], digest)
			}
			return nil
		})
		return gctx.Err()
	})
	return cmp.Or(g.Wait(), err) // if a lookup failed, the list ended because of it
}

func (r *repository) readTags(ctx context.Context, storage Storage) error {
	tags, err := storage.Tags(ctx, r.name)
	if err != nil && !errors.Is(err, stored.ErrNotStored) {
		return err
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(stored.MaxLookups)
	for _, tag := range tags {
		g.Go(func() error {
			digest, err := storage.Tagged(gctx, r.name, tag)
			if err != nil && !errors.Is(err, stored.ErrNotStored) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if r.manifests[digest] != nil {
				r.addTag(tag, digest)
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *repository) addTag(tag, digest string) {
	r.tags[tag] = digest
	if _, refers := classify.ReferrersTag(tag); refers {
		prefix := referrersPrefix(tag)
		r.referrerTags[prefix] = append(r.referrerTags[prefix], tag)
	}
}

// referrersPrefix returns the beginning of the referrers tags of a digest, given the digest
// or such a tag: the algorithm and 64 characters, to which the schema cuts longer digests.
func referrersPrefix(s string) string {
	s = strings.Replace(s, ":", "-", 1)
	return s[:min(len(s), len("sha256-")+64)]
}

// parse reads what a manifest names. The registry has parsed it before, but not its subject,
// which may be anything.
func parse(mediaType string, payload []byte) (*manifest, error) {
	type descriptor struct {
		Digest string `json:"digest"`
	}
	var image struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	target := any(&image)
	if event.IsIndex(mediaType) {
		target = &index
	}
	if err := json.Unmarshal(payload, target); err != nil {
		return nil, err
	}
	m := &manifest{}
	for _, d := range append(image.Layers, image.Config) {
		if d.Digest != "" {
			m.blobs = append(m.blobs, d.Digest)
		}
	}
	for _, d := range index.Manifests {
		m.children = append(m.children, d.Digest)
	}
	var more struct {
		Subject json.RawMessage `json:"subject"`
	}
	var subject descriptor
	if json.Unmarshal(payload, &more) == nil && json.Unmarshal(more.Subject, &subject) == nil {
		m.subject = subject.Digest
	}
	return m, nil
}

// marked calls visit with the blobs that distribution's garbage-collect keeps because of a
// manifest: children that the repository does not have as well.
func (m *manifest) marked(digest string, visit func(blob string)) {
	visit(digest)
	for _, blob := range m.blobs {
		visit(blob)
	}
	for _, child := range m.children {
		visit(child)
	}
}

func (r *repository) keepAll() {
	for _, m := range r.manifests {
		m.kept, m.tagged = true, true
	}
}

// decide marks the manifests that are kept, and returns the tags that are kept.
func (r *repository) decide(o Options) map[string]bool {
	kept := map[string]bool{}
	keepTag := func(tag string) {
		kept[tag] = true
		r.keep(r.tags[tag], kept, true)
	}
	newest := r.newest(o.Keep)
	for tag := range r.tags {
		if r.recent(lastuse.OfTag(tag), o.Before) || o.KeepTag != nil && o.KeepTag(tag) || newest[tag] {
			keepTag(tag)
		}
	}
	for digest := range r.manifests {
		if r.recent(lastuse.OfDigest(digest), o.Before) {
			r.keep(digest, kept, false)
		}
	}
	var leading []string
	for tag, digest := range r.tags {
		if !kept[tag] && r.leadsToUntagged(digest, map[string]bool{}) {
			leading = append(leading, tag)
		}
	}
	for _, tag := range leading {
		keepTag(tag)
	}
	return kept
}

// recent reports whether a tag or manifest was pushed or used in the period.
func (r *repository) recent(k lastuse.Key, before time.Time) bool {
	return !r.uses[k].Last().Before(before)
}

// newest returns the n tags that were pushed last, and those that may have been pushed at the
// same time as the last of them. Tags of the referrers tag schema don't count.
func (r *repository) newest(n int) map[string]bool {
	found := map[string]bool{}
	if n <= 0 {
		return found
	}
	pushed := map[string]int64{}
	for tag := range r.tags {
		if _, refers := classify.ReferrersTag(tag); !refers {
			pushed[tag] = r.uses[lastuse.OfTag(tag)].Pushed
		}
	}
	times := slices.Sorted(maps.Values(pushed))
	for tag, at := range pushed {
		if at >= times[max(len(times)-n, 0)] {
			found[tag] = true
		}
	}
	return found
}

// keep keeps a manifest, its children, and what refers to it.
func (r *repository) keep(digest string, tags map[string]bool, tagged bool) {
	m := r.manifests[digest]
	if m == nil || m.kept && (m.tagged || !tagged) {
		return
	}
	m.kept, m.tagged = true, m.tagged || tagged
	for _, child := range m.children {
		r.keep(child, tags, tagged)
	}
	for _, other := range r.referrers[digest] {
		r.keep(other, tags, tagged)
	}
	for _, tag := range r.referrerTags[referrersPrefix(digest)] {
		tags[tag] = true
		r.keep(r.tags[tag], tags, true)
	}
}

// leadsToUntagged reports whether a manifest, or a child of it, is kept and has no kept tag.
func (r *repository) leadsToUntagged(digest string, seen map[string]bool) bool {
	m := r.manifests[digest]
	if m == nil || seen[digest] {
		return false
	}
	seen[digest] = true
	if m.kept && !m.tagged {
		return true
	}
	for _, child := range m.children {
		if r.leadsToUntagged(child, seen) {
			return true
		}
	}
	return false
}
