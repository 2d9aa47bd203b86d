package notifier

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/post"
)

// A pusher chooses every word of a manifest. What of it can reach a record, a
// post, a page or the API is filtered here, once, when the event is read: known
// characters, bounded lengths, no number that no blob has.

// maxBlob is the size in bytes above which a blob is not believed to exist: more
// than any storage takes.
const maxBlob = 1 << 46

// otherMediaType stands for a media type that is none.
const otherMediaType = "application/octet-stream"

// filtered keeps of a manifest what may be shown, but for the media types of its
// layers: layersOf cleans them, and tells it. It changes what info points at.
func filtered(info lexicon.ManifestInfo) lexicon.ManifestInfo {
	info = withoutAnnotations(info)
	info.MediaType, info.ArtifactType = cleanMediaType(info.MediaType), cleanMediaType(info.ArtifactType)
	for i := range info.Layers {
		filter(&info.Layers[i])
	}
	for i := range info.Manifests {
		filter(&info.Manifests[i])
		info.Manifests[i].MediaType = cleanMediaType(info.Manifests[i].MediaType)
	}
	for _, d := range []*lexicon.Descriptor{info.Config, info.Subject} {
		if d != nil {
			filter(d)
			d.MediaType = cleanMediaType(d.MediaType)
		}
	}
	return info
}

// withoutAnnotations takes out what are the pusher's own words, of any length;
// nothing that is made of an event uses them. It changes what info points at.
func withoutAnnotations(info lexicon.ManifestInfo) lexicon.ManifestInfo {
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

// filter leaves in a descriptor what may be shown.
func filter(d *lexicon.Descriptor) {
	d.ArtifactType = cleanMediaType(d.ArtifactType)
	if digest.Digest(d.Digest).Validate() != nil {
		d.Digest = ""
	}
	p := d.Platform
	switch d.Platform = nil; {
	case noPlatform(p):
		d.Platform = &lexicon.Platform{OS: p.OS}
	case p != nil && post.Platform(p.OS, p.Architecture, p.Variant) != "":
		d.Platform = &lexicon.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	}
}

// noPlatform reports whether a descriptor says that what it points at runs on
// nothing: attestations are listed so in an index.
func noPlatform(p *lexicon.Platform) bool { return p != nil && p.OS == "unknown" }

// cleanMediaType is s if a layer record can hold it; without its parameters if only
// that can be held; otherMediaType if neither. Empty stays empty.
func cleanMediaType(s string) string {
	if s == "" {
		return ""
	}
	name, parameters, _ := strings.Cut(s, ";")
	name = strings.TrimSpace(name)
	top, sub, _ := strings.Cut(name, "/")
	switch {
	case len(name) > lexicon.MaxLayerText || !restrictedName(top) || !restrictedName(sub):
		return otherMediaType
	case len(s) > lexicon.MaxLayerText || !printable(parameters):
		return name
	}
	return s
}

// restrictedName reports whether s can be the type or the subtype of a media
// type. (RFC 6838, 4.2)
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
