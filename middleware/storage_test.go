package middleware

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/notifier"
)

// What the registry has stored is read as it is, whoever else has it open.
func TestStored(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	s := newStored(t.Context(), r.config)
	list := func() (found []string) {
		t.Helper()
		err := s.Repositories(t.Context(), func(repository string) error {
			return s.Manifests(t.Context(), repository, func(digest string) error {
				found = append(found, repository+"@"+digest)
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(found)
		return found
	}
	if got := list(); len(got) != 0 {
		t.Errorf("an empty registry has %q", got)
	}
	first, second := r.image("oss/app", "FIRST", v1.MediaTypeImageManifest), r.image("oss/app", "SECOND", v1.MediaTypeImageManifest)
	r.mustPush("oss/app", "v1", first)
	r.mustPush("oss/app", "old", first)
	r.mustPush("oss/app", "v1", second)
	for _, c := range []struct {
		name, repository, digest string
		want                     bool
	}{
		{"it is there", "oss/app", first.digest, true},
		{"the manifest never was", "oss/app", digest.FromString("?").String(), false},
		{"it is in another repository", "other", first.digest, false},
	} {
		if got, err := s.Has(t.Context(), c.repository, c.digest); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
		mediaType, payload, err := s.Manifest(t.Context(), c.repository, c.digest)
		switch {
		case c.want && (err != nil || mediaType != first.mediaType || string(payload) != string(first.body)):
			t.Errorf("%s: got %s %s, %v", c.name, mediaType, payload, err)
		case !c.want && !errors.Is(err, notifier.ErrNotStored):
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	layer := digest.FromString("layer of FIRST").String()
	for _, c := range []struct {
		name, repository, digest string
		most                     int64
		want                     string
	}{
		{"it is there", "oss/app", layer, 14, "layer of FIRST"},
		{"it has more bytes", "oss/app", layer, 13, ""},
		{"it is in another repository", "other", layer, 14, ""},
		{"it never was", "oss/app", digest.FromString("?").String(), 14, ""},
	} {
		got, err := s.Blob(t.Context(), c.repository, c.digest, c.most)
		if string(got) != c.want || (c.want == "") != errors.Is(err, notifier.ErrNotStored) || err != nil && c.want != "" {
			t.Errorf("blob, %s: %q, %v", c.name, got, err)
		}
		size, err := s.BlobSize(t.Context(), c.repository, c.digest)
		there := c.repository == "oss/app" && c.digest == layer
		if there && (size != 14 || err != nil) || !there && !errors.Is(err, notifier.ErrNotStored) {
			t.Errorf("size of a blob, %s: %d, %v", c.name, size, err)
		}
	}
	for tag, want := range map[string]string{"v1": second.digest, "old": first.digest} {
		if got, err := s.Tagged(t.Context(), "oss/app", tag); err != nil || got != want {
			t.Errorf("tag %s: %s, %v; want %s", tag, got, err, want)
		}
	}
	for _, repository := range []string{"oss/app", "other"} {
		if _, err := s.Tagged(t.Context(), repository, "v2"); !errors.Is(err, notifier.ErrNotStored) {
			t.Errorf("a tag that is not there: %v", err)
		}
	}
	want := []string{"oss/app@" + first.digest, "oss/app@" + second.digest}
	slices.Sort(want)
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	r.do("DELETE", "/v2/oss/app/manifests/"+second.digest, nil)
	if got, err := s.Has(t.Context(), "oss/app", second.digest); err != nil || got {
		t.Errorf("deleted: %v, %v", got, err)
	}
	if got := list(); !slices.Equal(got, []string{"oss/app@" + first.digest}) {
		t.Errorf("listed %q after the delete", got)
	}
	if err := s.Manifests(t.Context(), "other", func(string) error { return errors.New("it has one") }); err != nil {
		t.Error(err)
	}
}

// "Storage could not say" is an error, never a no.
func TestStoredErrors(t *testing.T) {
	t.Parallel()
	good := digest.FromString("x").String()
	s := newStored(t.Context(), configure(t, plainYAML))
	if _, err := s.Has(t.Context(), "NOT A NAME", good); err == nil {
		t.Error("a bad name: no error")
	}
	if _, err := s.Has(t.Context(), "app", "sha256:x"); err == nil {
		t.Error("a bad digest: no error")
	}
	s = newStored(t.Context(), configure(t, plainYAML, func(c *configuration.Configuration) {
		c.Storage = configuration.Storage{"nosuchdriver": nil}
	}))
	for range 2 {
		if _, err := s.Has(t.Context(), "app", good); err == nil {
			t.Error("no driver: no error")
		}
	}
	// It is asked again after an error.
	s.config = configure(t, plainYAML)
	if has, err := s.Has(context.Background(), "app", good); has || err != nil {
		t.Errorf("got %v, %v", has, err)
	}
}
