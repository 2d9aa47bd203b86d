package unused

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/lastuse"
)

// remove deletes a tag, or a manifest with its tags, as distribution does.
func (r *registry) remove(repository, reference string) error {
	if !strings.Contains(reference, ":") {
		if _, ok := r.tags[repository][reference]; !ok {
			return ErrRemoved
		}
		delete(r.tags[repository], reference)
		delete(r.uses[repository], lastuse.OfTag(reference))
		return nil
	}
	if _, ok := r.manifests[repository][reference]; !ok {
		return ErrRemoved
	}
	delete(r.manifests[repository], reference)
	maps.DeleteFunc(r.tags[repository], func(_, digest string) bool { return digest == reference })
	delete(r.uses[repository], lastuse.OfDigest(reference))
	return nil
}

// deletion records the requests of a Deletion, and calls meanwhile after each.
type deletion struct {
	*registry
	Deletion
	names     map[string]string // of digests
	requests  []string
	skipped   []string
	meanwhile func() error
}

func (d *deletion) run(t *testing.T) error {
	t.Helper()
	d.Search = d.search(d.Deletion.Options)
	result, err := d.Search.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := func(reference string) string {
		if short := d.names[reference]; short != "" {
			return short
		}
		return reference
	}
	d.Remove = func(_ context.Context, repository, reference string) error {
		d.requests = append(d.requests, name(reference))
		return errors.Join(d.remove(repository, reference), d.meanwhile())
	}
	d.Skipped = func(_, reference string) { d.skipped = append(d.skipped, name(reference)) }
	_, err = d.Deletion.Run(t.Context(), result.Items)
	return err
}

func newDeletion() *deletion {
	return &deletion{registry: newRegistry(), names: map[string]string{}, meanwhile: func() error { return nil },
		Deletion: Deletion{Search: &Search{}}}
}

// named pushes an image that the requests show by its name.
func (d *deletion) named(name, tag string) string {
	digest := d.image(tag, name, name)
	d.names[digest] = name
	return digest
}

func TestDeleteOrder(t *testing.T) {
	t.Parallel()
	d := newDeletion()
	child := d.named("child", "")
	index := d.push("app", "v1", map[string]any{"manifests": describe(child)})
	signature := d.push("app", "", map[string]any{"subject": describe(index)[0]})
	cosign := d.named("cosign", strings.Replace(child, ":", "-", 1)+".sig")
	d.names[index], d.names[signature], d.names[cosign] = "index", "signature", "cosign"
	d.use("latest", d.named("kept", "latest"))
	d.named("kept", "old")
	if err := d.run(t); err != nil {
		t.Fatal(err)
	}
	at := func(name string) int { return slices.Index(d.requests, name) }
	if len(d.requests) != 5 || at("old") != 0 || at("index") < 0 || at("child") < at("index") || at("signature") < at("index") || at("cosign") < at("child") {
		t.Errorf("requests %q, want old, index, child and what refers to them", d.requests)
	}
	if len(d.manifests["app"]) != 1 || len(d.tags["app"]) != 1 {
		t.Errorf("left are %v and %v", d.manifests["app"], d.tags["app"])
	}
}

// TestDeleteUsedMeanwhile: what is used, pushed again or listed by a new index after the
// search is kept, with all that belongs to it.
func TestDeleteUsedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(d *deletion, one, two string){
		"pull by digest": func(d *deletion, one, two string) { d.use(one, two) },
		"pull by tag":    func(d *deletion, one, two string) { d.use("v1", "v2") },
		"push of an index": func(d *deletion, one, two string) {
			d.use(d.push("app", "all", map[string]any{"manifests": describe(one, two)}))
		},
		"move of the tags": func(d *deletion, one, two string) {
			d.use("v1", "v2", d.named("new", "v1"), d.named("new", "v2"), one, two)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeletion()
			one, two := d.named("one", "v1"), d.named("two", "v2")
			d.named("first", "v0")
			d.named("first", "v0.1")
			d.use("v0.1")
			d.meanwhile = func() error { meanwhile(d, one, two); return nil }
			if err := d.run(t); err != nil {
				t.Fatal(err)
			}
			slices.Sort(d.skipped)
			if !slices.Equal(d.requests, []string{"v0"}) || !slices.Equal(d.skipped, []string{"one", "two"}) {
				t.Errorf("requests %q, skipped %q; want v0 deleted, one and two skipped", d.requests, d.skipped)
			}
		})
	}
}

// TestDeleteStops: the first error ends it, and the next run does the rest.
func TestDeleteStops(t *testing.T) {
	t.Parallel()
	d := newDeletion()
	d.named("one", "v1")
	d.named("two", "v2")
	failed := errors.New("failed by test")
	d.meanwhile = func() error { return failed }
	if err := d.run(t); !errors.Is(err, failed) || len(d.requests) != 1 {
		t.Errorf("error %v after requests %q, want one", err, d.requests)
	}
	d.meanwhile = func() error { return ErrRemoved } // another client deletes as well
	if err := d.run(t); err != nil || len(d.requests) != 2 || len(d.manifests["app"]) != 0 {
		t.Errorf("error %v after requests %q, left are %v", err, d.requests, d.manifests["app"])
	}
}

// TestDeleteUnknownUses: nothing is deleted if uses were lost, also if that happens meanwhile.
func TestDeleteUnknownUses(t *testing.T) {
	t.Parallel()
	d := newDeletion()
	d.named("one", "v1")
	d.named("two", "v2")
	d.meanwhile = func() error { d.since = before.Add(1); return nil }
	if err := d.run(t); !errors.Is(err, ErrUsesUnknown) || len(d.requests) != 1 {
		t.Errorf("error %v after requests %q, want ErrUsesUnknown after one", err, d.requests)
	}
	if err := d.run(t); !errors.Is(err, ErrUsesUnknown) || len(d.requests) != 1 {
		t.Errorf("error %v after requests %q, want ErrUsesUnknown before the second", err, d.requests)
	}
	d.since, d.missing = before, "those of another registry"
	if err := d.run(t); !errors.Is(err, ErrUsesUnknown) || len(d.requests) != 1 {
		t.Errorf("error %v after requests %q, want ErrUsesUnknown since some are missing", err, d.requests)
	}
}
