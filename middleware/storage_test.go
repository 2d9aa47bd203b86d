package middleware

import (
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What storage says of pushes that a crash left open.
func TestStored(t *testing.T) {
	t.Parallel()
	r := hear(t, &hooks{}, &hooks{})
	first, second := r.image("oss/app", "FIRST", v1.MediaTypeImageManifest), r.image("oss/app", "SECOND", v1.MediaTypeImageManifest)
	r.mustPush("oss/app", "v1", first)
	r.mustPush("oss/app", "old", first)
	r.mustPush("oss/app", "v1", second)
	s := newStored(t.Context(), r.config)
	for _, c := range []struct {
		name, repository, tag, digest string
		want                          bool
	}{
		{"the tag points at it", "oss/app", "v1", second.digest, true},
		{"the tag moved on", "oss/app", "v1", first.digest, false},
		{"another tag still does", "oss/app", "old", first.digest, true},
		{"by digest", "oss/app", "", first.digest, true},
		{"the tag never was", "oss/app", "v2", first.digest, false},
		{"the manifest never was", "oss/app", "v1", digest.FromString("?").String(), false},
		{"the manifest never was, by digest", "oss/app", "", digest.FromString("?").String(), false},
		{"it is in another repository", "other", "", first.digest, false},
	} {
		if got, err := s.Has(t.Context(), c.repository, c.tag, c.digest); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
	}
	r.do("DELETE", "/v2/oss/app/manifests/"+second.digest, nil)
	if got, err := s.Has(t.Context(), "oss/app", "", second.digest); err != nil || got {
		t.Errorf("deleted: %v, %v", got, err)
	}
}

// "Storage could not say" is an error, never a no.
func TestStoredErrors(t *testing.T) {
	t.Parallel()
	good := digest.FromString("x").String()
	s := newStored(t.Context(), configure(t, plainYAML))
	if _, err := s.Has(t.Context(), "NOT A NAME", "", good); err == nil {
		t.Error("a bad name: no error")
	}
	if _, err := s.Has(t.Context(), "app", "", "sha256:x"); err == nil {
		t.Error("a bad digest: no error")
	}
	s = newStored(t.Context(), configure(t, plainYAML, func(c *configuration.Configuration) {
		c.Storage = configuration.Storage{"nosuchdriver": nil}
	}))
	for range 2 {
		if _, err := s.Has(t.Context(), "app", "", good); err == nil {
			t.Error("no driver: no error")
		}
	}
}
