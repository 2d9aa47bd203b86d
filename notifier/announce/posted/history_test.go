package posted

import (
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/notifier/state"
)

// A post is in the history once, one that was given up is in it without a key, and what
// earlier versions wrote can be read.
func TestHistory(t *testing.T) {
	t.Parallel()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h := NewHistory(state.OnPebble(db), "did:web:registry.test")
	const repository, digest = "oss/app", "sha256:1"
	for _, test := range []struct {
		before string   // as an earlier version wrote it
		add    []Entry  // in one batch
		last   string   // key of the newest post
		tags   []string // of all entries
	}{
		{"", []Entry{{RKey: "a", Tags: []string{"v1", "latest"}}, {RKey: "b", Tags: []string{"v2"}}}, "b", []string{"v1", "latest", "v2"}},
		{"", []Entry{{RKey: "a", Tags: []string{"v1"}}, {RKey: "a", Tags: []string{"v1"}}}, "a", []string{"v1"}},
		{"", []Entry{{RKey: "a", Tags: []string{"v1"}}, {RKey: "", Tags: []string{"v2"}}}, "a", []string{"v1", "v2"}},
		{"a", []Entry{{RKey: "a", Tags: nil}}, "a", nil},
		{"a", []Entry{{RKey: "b", Tags: []string{"v1"}}}, "b", []string{"v1"}},
	} {
		var b state.Batch
		b.Delete(h.key(repository, digest))
		if test.before != "" {
			b.Set(h.key(repository, digest), []byte(test.before))
		}
		for _, e := range test.add {
			if err := h.Add(&b, repository, digest, e); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.db.Commit(&b, state.NoSync); err != nil {
			t.Fatal(err)
		}
		got, err := h.Get(repository, digest)
		if err != nil {
			t.Fatal(err)
		}
		var tags []string
		for _, e := range got {
			tags = append(tags, e.Tags...)
		}
		if got.Last() != test.last || !slices.Equal(tags, test.tags) {
			t.Errorf("after %q and %+v: %+v", test.before, test.add, got)
		}
		if has, err := h.Has(repository, digest, test.last); !has || err != nil {
			t.Errorf("Has(%q) = %v, %v", test.last, has, err)
		}
		if has, err := h.Has("oss/other", digest, test.last); has || err != nil {
			t.Errorf("Has(%q) of another repository = %v, %v", test.last, has, err)
		}
	}
}
