package middleware

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/middleware/storage"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// A reader reads the storage that a running registry writes.
func TestStored(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	s := storage.NewReader(t.Context(), r.config)
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
		{"present", "oss/app", first.digest, true},
		{"unknown manifest", "oss/app", digest.FromString("?").String(), false},
		{"another repository", "other", first.digest, false},
	} {
		if got, err := s.Has(t.Context(), c.repository, c.digest); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
		mediaType, payload, err := s.Manifest(t.Context(), c.repository, c.digest)
		switch {
		case c.want && (err != nil || mediaType != first.mediaType || string(payload) != string(first.body)):
			t.Errorf("%s: got %s %s, %v", c.name, mediaType, payload, err)
		case !c.want && !errors.Is(err, stored.ErrNotStored):
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	layer := digest.FromString("layer of FIRST").String()
	for _, c := range []struct {
		name, repository, digest string
		most                     int64
		want                     string
	}{
		{"present", "oss/app", layer, 14, "layer of FIRST"},
		{"above the limit", "oss/app", layer, 13, ""},
		{"another repository", "other", layer, 14, ""},
		{"unknown blob", "oss/app", digest.FromString("?").String(), 14, ""},
	} {
		got, err := s.Blob(t.Context(), c.repository, c.digest, c.most)
		if string(got) != c.want || (c.want == "") != errors.Is(err, stored.ErrNotStored) || err != nil && c.want != "" {
			t.Errorf("blob, %s: %q, %v", c.name, got, err)
		}
		size, err := s.BlobSize(t.Context(), c.repository, c.digest)
		present := c.repository == "oss/app" && c.digest == layer
		if present && (size != 14 || err != nil) || !present && !errors.Is(err, stored.ErrNotStored) {
			t.Errorf("size of a blob, %s: %d, %v", c.name, size, err)
		}
	}
	for tag, want := range map[string]string{"v1": second.digest, "old": first.digest} {
		if got, err := s.Tagged(t.Context(), "oss/app", tag); err != nil || got != want {
			t.Errorf("tag %s: %s, %v; want %s", tag, got, err, want)
		}
	}
	for _, repository := range []string{"oss/app", "other"} {
		if _, err := s.Tagged(t.Context(), repository, "v2"); !errors.Is(err, stored.ErrNotStored) {
			t.Errorf("an unknown tag: %v", err)
		}
	}
	if tags, err := s.Tags(t.Context(), "oss/app"); err != nil || len(tags) != 2 || !slices.Contains(tags, "v1") || !slices.Contains(tags, "old") {
		t.Errorf("tags: %q, %v", tags, err)
	}
	if tags, err := s.Tags(t.Context(), "other"); !errors.Is(err, stored.ErrNotStored) {
		t.Errorf("tags of an unknown repository: %q, %v", tags, err)
	}
	want := []string{"oss/app@" + first.digest, "oss/app@" + second.digest}
	slices.Sort(want)
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	visited := 0
	err := s.Manifests(ctx, "oss/app", func(string) error { visited++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || visited != 1 {
		t.Errorf("a list that is interrupted: %d manifests, %v", visited, err)
	}
	r.do("DELETE", "/v2/oss/app/manifests/"+second.digest, nil)
	if got, err := s.Has(t.Context(), "oss/app", second.digest); err != nil || got {
		t.Errorf("a deleted manifest: %v, %v", got, err)
	}
	if got := list(); !slices.Equal(got, []string{"oss/app@" + first.digest}) {
		t.Errorf("listed %q after the delete", got)
	}
	if err := s.Manifests(t.Context(), "other", func(string) error { return errors.New("unexpected manifest") }); err != nil {
		t.Error(err)
	}
}

// Has returns an error, and not false, if storage cannot be read.
func TestStoredErrors(t *testing.T) {
	t.Parallel()
	good := digest.FromString("x").String()
	s := storage.NewReader(t.Context(), configure(t, plainYAML))
	if _, err := s.Has(t.Context(), "NOT A NAME", good); err == nil {
		t.Error("an invalid name: no error")
	}
	if _, err := s.Has(t.Context(), "app", "sha256:x"); err == nil {
		t.Error("an invalid digest: no error")
	}
	host := configure(t, plainYAML, func(c *configuration.Configuration) {
		c.Storage = configuration.Storage{"nosuchdriver": nil}
	})
	s = storage.NewReader(t.Context(), host)
	for range 2 {
		if _, err := s.Has(t.Context(), "app", good); err == nil {
			t.Error("an unknown driver: no error")
		}
	}
	// The next call after an error opens the storage again.
	host.Storage = configure(t, plainYAML).Storage
	if has, err := s.Has(context.Background(), "app", good); has || err != nil {
		t.Errorf("got %v, %v", has, err)
	}
}
