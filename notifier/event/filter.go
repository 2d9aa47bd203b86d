package event

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/post"
)

// All content of a manifest is chosen by its pusher. What can reach a record, a post or
// the API is filtered here, once, when the event is decoded: to allowed characters,
// lengths and sizes.

// maxBlob is the largest valid size of a blob in bytes: more than any storage takes.
const maxBlob = 1 << 46

// OtherMediaType replaces an invalid media type.
const OtherMediaType = "application/octet-stream"

// FilterManifest returns what may be shown of a manifest, except that the media types of
// its layers are unchanged: LayersOf cleans and reports them. Of the annotations only those
// of the manifest itself with the given keys are kept, shortened. It changes what info
// points to.
func FilterManifest(info lexicon.ManifestInfo, annotations ...string) lexicon.ManifestInfo {
	kept := post.SelectAnnotations(info.Annotations, annotations)
	info = WithoutAnnotations(info)
	info.Annotations = kept
	info.MediaType, info.ArtifactType = cleanMediaType(info.MediaType), cleanMediaType(info.ArtifactType)
	for i := range info.Layers {
		filterDescriptor(&info.Layers[i])
	}
	for i := range info.Manifests {
		filterDescriptor(&info.Manifests[i])
		info.Manifests[i].MediaType = cleanMediaType(info.Manifests[i].MediaType)
	}
	for _, d := range []*lexicon.Descriptor{info.Config, info.Subject} {
		if d != nil {
			filterDescriptor(d)
			d.MediaType = cleanMediaType(d.MediaType)
		}
	}
	return info
}

// WithoutAnnotations removes annotations, which are free text of any length. It changes what info points to.
func WithoutAnnotations(info lexicon.ManifestInfo) lexicon.ManifestInfo {
	info.Annotations = nil
	for _, list := range [][]lexicon.Descriptor{info.Layers, info.Manifests} {
		for i := range list {
			list[i].Annotations = nil
		}
	}
	for _, d := range []*lexicon.Descriptor{info.Config, info.Subject} {
		if d != nil {
			d.Annotations = nil
		}
	}
	return info
}

// filterDescriptor removes from a descriptor what may not be shown.
func filterDescriptor(d *lexicon.Descriptor) {
	d.ArtifactType = cleanMediaType(d.ArtifactType)
	if digest.Digest(d.Digest).Validate() != nil {
		d.Digest = ""
	}
	p := d.Platform
	switch d.Platform = nil; {
	case NoPlatform(p):
		d.Platform = &lexicon.Platform{OS: p.OS}
	case p != nil && post.Platform(p.OS, p.Architecture, p.Variant) != "":
		d.Platform = &lexicon.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	}
}

// NoPlatform reports whether a platform is the one that an index declares for
// attestations, which can't run.
func NoPlatform(p *lexicon.Platform) bool { return p != nil && p.OS == "unknown" }

// cleanMediaType returns s if it is valid in a layer record, s without its parameters if
// that is, and otherwise OtherMediaType. "" stays "".
func cleanMediaType(s string) string {
	if s == "" {
		return ""
	}
	name, parameters, _ := strings.Cut(s, ";")
	name = strings.TrimSpace(name)
	top, sub, _ := strings.Cut(name, "/")
	switch {
	case len(name) > lexicon.MaxLayerText || !restrictedName(top) || !restrictedName(sub):
		return OtherMediaType
	case len(s) > lexicon.MaxLayerText || !printable(parameters):
		return name
	}
	return s
}

// restrictedName reports whether s is valid as the type or the subtype of a media type
// (RFC 6838, 4.2).
func restrictedName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || strings.IndexByte("!#$&-^_.+", c) < 0) {
			return false
		}
	}
	return s != "" && len(s) <= 127
}

// printable reports whether s is printable ASCII.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
