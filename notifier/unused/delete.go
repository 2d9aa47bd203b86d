package unused

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/lastuse"
)

// How unused tags and manifests are deleted
//
// Only what was listed is deleted, and only if it is still unused. Each repository is read
// and decided anew. Before each request the recent uses are compared with those of the
// decision. A pull, a push of any tag or manifest, or a delete changes them, and then the
// repository is read and decided again. (A second use within lastuse.Resolution does not, but
// what it uses is kept already.) What is used between this check and the request, within
// milliseconds, is deleted all the same.
//
// Indexes are deleted before their children, and images before their signatures, so that an
// interruption leaves no image that lacks a part. What it leaves is unused, and found by the
// next search.

// ErrRemoved is returned by a Remover for what the registry does not have.
var ErrRemoved = errors.New("not in the registry")

// ErrUsesUnknown means that the uses are not known for the whole period.
var ErrUsesUnknown = errors.New("the uses are not known for the whole period")

// A Deletion deletes what a Search has found.
type Deletion struct {
	*Search
	// Remove deletes a tag, or a manifest with its tags.
	Remove func(ctx context.Context, repository, reference string) error
	// Skipped, if not nil, is called with each tag or manifest that is kept because it was
	// used, or changed, meanwhile.
	Skipped func(repository, reference string)
}

// step is one request. The reference is the tag or, if there is none, the digest.
type step struct{ tag, digest string }

func (s step) reference() string {
	if s.tag != "" {
		return s.tag
	}
	return s.digest
}

// Run deletes the items of a result, and returns the number of requests that had an effect.
// It stops at the first error; another search and deletion does the rest.
func (d *Deletion) Run(ctx context.Context, items []Item) (deleted int, err error) {
	done := 0
	for start := 0; start < len(items); {
		end := start
		for end < len(items) && items[end].Repository == items[start].Repository {
			end++
		}
		removed, err := d.repository(ctx, items[start:end], func() {
			if done < len(items) {
				done++
			}
			d.progress(done, len(items))
		})
		deleted += removed
		if err != nil {
			return deleted, err
		}
		done, start = end, end
		d.progress(done, len(items))
	}
	return deleted, nil
}

// decision is what is known of a repository at one moment.
type decision struct {
	*repository
	keptTags map[string]bool
	recent   map[lastuse.Key]lastuse.Use
}

func (d *Deletion) decide(ctx context.Context, name string) (*decision, error) {
	uses, err := d.known(ctx, name, time.Time{}) // before storage is read: what changes meanwhile is noticed
	if err != nil {
		return nil, err
	}
	r, err := d.read(ctx, name)
	if err != nil {
		return nil, err
	}
	r.uses = uses.Rows
	recent := maps.Clone(r.uses)
	maps.DeleteFunc(recent, func(_ lastuse.Key, u lastuse.Use) bool { return u.Last().Before(d.Before) })
	return &decision{r, r.decide(d.Options), recent}, nil
}

// known returns the uses of a repository if they are known for the whole period.
func (d *Deletion) known(ctx context.Context, name string, after time.Time) (Uses, error) {
	uses, err := d.Uses(ctx, name, after)
	if err == nil && uses.Since.After(d.Before) {
		err = fmt.Errorf("%w: only since %s", ErrUsesUnknown, uses.Since.UTC().Format(time.RFC3339))
	}
	if err == nil && uses.Missing != "" {
		err = fmt.Errorf("%w: %s", ErrUsesUnknown, uses.Missing)
	}
	return uses, err
}

// repository deletes the items of one repository.
func (d *Deletion) repository(ctx context.Context, items []Item, progress func()) (deleted int, err error) {
	name := items[0].Repository
	now, err := d.decide(ctx, name)
	if err != nil {
		return 0, err
	}
	for _, s := range now.steps(items) {
		uses, err := d.known(ctx, name, d.Before)
		if err == nil && !maps.Equal(uses.Rows, now.recent) {
			now, err = d.decide(ctx, name)
		}
		if err != nil {
			return deleted, err
		}
		if !now.unused(s) {
			d.skipped(name, s)
			continue
		}
		switch err := d.Remove(ctx, name, s.reference()); {
		case err == nil:
			deleted++
		case !errors.Is(err, ErrRemoved):
			return deleted, err
		}
		progress()
	}
	return deleted, nil
}

func (d *Deletion) skipped(name string, s step) {
	if d.Skipped != nil {
		d.Skipped(name, s.reference())
	}
}

// unused reports whether a step still concerns something unused.
func (d *decision) unused(s step) bool {
	if s.tag != "" {
		return d.tags[s.tag] == s.digest && !d.keptTags[s.tag]
	}
	m := d.manifests[s.digest]
	return m != nil && !m.kept
}

// steps are the requests that delete items. A manifest takes its tags with it.
func (d *decision) steps(items []Item) []step {
	var tags, manifests []step
	unused := map[string]bool{}
	for _, item := range items {
		if item.Manifest {
			unused[item.Digest] = true
		} else {
			tags = append(tags, step{item.Tag, item.Digest})
		}
	}
	seen := map[string]bool{}
	var visit func(digest string)
	visit = func(digest string) {
		m := d.manifests[digest]
		if m == nil || seen[digest] {
			return
		}
		seen[digest] = true
		for _, other := range d.after(digest, m) {
			visit(other)
		}
		if unused[digest] {
			manifests = append(manifests, step{"", digest})
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(unused)) {
		visit(digest)
	}
	slices.Reverse(manifests)
	return append(tags, manifests...)
}

// after returns the manifests that are deleted after a manifest: its children, and what
// refers to it.
func (d *decision) after(digest string, m *manifest) []string {
	later := append(slices.Clone(m.children), d.referrers[digest]...)
	for _, tag := range d.referrerTags[referrersPrefix(digest)] {
		later = append(later, d.tags[tag])
	}
	return later
}
