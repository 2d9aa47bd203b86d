package event

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/post"
)

// Kind is the kind of a manifest.
type Kind string

const (
	KindImage       Kind = "image"
	KindIndex       Kind = "index"
	KindChart       Kind = "chart"
	KindSignature   Kind = "signature"
	KindAttestation Kind = "attestation"
	KindArtifact    Kind = "artifact"
)

// Supporting reports whether manifests of this kind describe another image and are not
// pulled for themselves.
func (k Kind) Supporting() bool { return k == KindSignature || k == KindAttestation }

// CountedAs is the kind for the classifier. Pulls of charts and other artifacts count
// like those of images.
func (k Kind) CountedAs(tag string) string {
	_, refers := classify.ReferrersTag(tag)
	switch {
	case k.Supporting() || refers:
		return "artifact"
	case k == KindIndex:
		return "index"
	}
	return "image"
}

const (
	MediaTypeDockerList   = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"
	MediaTypeChartConfig  = "application/vnd.cncf.helm.config.v1+json"
)

// ReadManifest parses what the sinks need of a stored manifest. Docker's schema 2 and OCI
// manifests have the same member names. The registry has parsed the manifest before, but
// not all members: those that it does not parse may have any JSON, and are left out if
// they are invalid. Annotations with the given keys are kept.
func ReadManifest(mediaType string, payload []byte, annotations ...string) (lexicon.ManifestInfo, error) {
	var image struct {
		unparsedMembers
		Config *lexicon.Descriptor  `json:"config"`
		Layers []lexicon.Descriptor `json:"layers"`
	}
	var index struct {
		unparsedMembers
		Manifests []lexicon.Descriptor `json:"manifests"`
	}
	info := lexicon.ManifestInfo{MediaType: mediaType}
	target, more := any(&image), &image.unparsedMembers
	if IsIndex(mediaType) {
		target, more = &index, &index.unparsedMembers
	}
	if err := json.Unmarshal(payload, target); err != nil {
		return info, fmt.Errorf("read manifest: %w", err)
	}
	info.Config, info.Layers, info.Manifests = image.Config, image.Layers, index.Manifests
	if json.Unmarshal(more.ArtifactType, &info.ArtifactType) != nil {
		info.ArtifactType = ""
	}
	if json.Unmarshal(more.Subject, &info.Subject) != nil {
		info.Subject = nil
	}
	if len(annotations) > 0 && json.Unmarshal(more.Annotations, &info.Annotations) != nil {
		info.Annotations = nil
	}
	return FilterManifest(info, annotations...), nil
}

// unparsedMembers are those that the registry does not parse.
type unparsedMembers struct {
	ArtifactType json.RawMessage `json:"artifactType"`
	Subject      json.RawMessage `json:"subject"`
	Annotations  json.RawMessage `json:"annotations"`
}

// IsIndex reports whether a manifest of a media type lists other manifests.
func IsIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == MediaTypeDockerList
}

// KindOf returns the kind of a manifest. One without a media type, as another registry may
// report it, is an index if it lists manifests.
func KindOf(m *lexicon.ManifestInfo, tag string) Kind {
	config := ""
	if m.Config != nil {
		config = m.Config.MediaType
	}
	mediaType := m.MediaType
	if mediaType == "" && len(m.Manifests) > 0 {
		mediaType = v1.MediaTypeImageIndex
	}
	kind := KindOfParts(mediaType, m.ArtifactType, config, tag, func(yield func(string) bool) {
		for i := range m.Layers {
			if !yield(m.Layers[i].MediaType) {
				return
			}
		}
	})
	if m.Subject != nil && !kind.Supporting() {
		return KindArtifact
	}
	return kind
}

// KindOfParts returns the kind from members of a manifest that the registry has parsed,
// so that a pull parses nothing. config is the media type of the config. Without one the
// layers decide, since the published schema of io.atcr.hold.notifyManifest does not have it.
func KindOfParts(mediaType, artifactType, config, tag string, layers iter.Seq[string]) Kind {
	if suffix, ok := classify.ReferrersTag(tag); ok {
		switch suffix {
		case "sig":
			return KindSignature
		case "att":
			return KindAttestation
		}
		return KindArtifact
	}
	if kind := supportingKind(artifactType); kind != "" {
		return kind
	}
	if kind := supportingKind(config); kind != "" {
		return kind
	}
	for t := range layers {
		if kind := supportingKind(t); kind != "" {
			return kind
		}
	}
	switch {
	case IsIndex(mediaType):
		if artifactType != "" {
			return KindArtifact
		}
		return KindIndex
	case config == "" && artifactType == "" && imageLayers(layers):
		return KindImage
	case config == MediaTypeChartConfig:
		return KindChart
	case artifactType != "", config != v1.MediaTypeImageConfig && config != mediaTypeDockerConfig:
		return KindArtifact
	}
	return KindImage
}

// imageLayers reports whether the media types of layers are all those of images.
func imageLayers(layers iter.Seq[string]) bool {
	found := false
	for t := range layers {
		if !strings.HasPrefix(t, "application/vnd.oci.image.layer.") && !strings.HasPrefix(t, "application/vnd.docker.image.rootfs.") {
			return false
		}
		found = true
	}
	return found
}

// supportingKind is KindSignature or KindAttestation if a media type alone shows it, or
// "". Media types in the registry's parsed manifest are not filtered: one that the filter
// would replace shows nothing.
func supportingKind(s string) Kind {
	if matchSupporting(s) == "" { // nearly always
		return ""
	}
	return matchSupporting(cleanMediaType(s))
}

func matchSupporting(s string) Kind {
	for _, part := range []string{"cosign.simplesigning", "cosign.artifact.sig", "notary.signature", "sigstore.bundle"} {
		if strings.Contains(s, part) {
			return KindSignature
		}
	}
	if strings.Contains(s, "in-toto") || strings.Contains(s, "dsse.envelope") {
		return KindAttestation
	}
	return ""
}

// SizeOf is the size of an image without its manifest, as the manifest declares it: config
// and layers that the registry has, each digest once. It is 0 if it is not known, and for
// an index, whose images have manifests of their own.
func SizeOf(m *lexicon.ManifestInfo) int64 {
	return SumSizes(BlobsOf(m))
}

// SumSizes is the sum of the sizes of blobs; 0 if one of them is not known or invalid.
func SumSizes(blobs map[string]int64) int64 {
	var total int64
	for digest, size := range blobs {
		if digest == "" || size < 0 || size > maxBlob || total > maxBlob {
			return 0
		}
		total += size
	}
	return total
}

// BlobsOf returns the blobs of an image that the registry has, with their declared sizes.
// Layers with URLs are stored elsewhere.
func BlobsOf(m *lexicon.ManifestInfo) map[string]int64 {
	blobs := make(map[string]int64, 1+len(m.Layers))
	if m.Config != nil {
		blobs[m.Config.Digest] = m.Config.Size
	}
	for _, l := range m.Layers {
		if _, again := blobs[l.Digest]; !again && len(l.URLs) == 0 {
			blobs[l.Digest] = l.Size
		}
	}
	return blobs
}

// ChildrenOf returns the digests that an index lists, without invalid ones.
func ChildrenOf(m *lexicon.ManifestInfo) []string {
	var digests []string
	for _, d := range m.Manifests {
		if d.Digest != "" { // FilterManifest removed an invalid one
			digests = append(digests, d.Digest)
		}
	}
	return digests
}

// MaxPlatforms is how many platforms of an index are shown.
const MaxPlatforms = 32

// PlatformsOf returns the platforms of an index, such as "linux/arm/v7".
func PlatformsOf(m *lexicon.ManifestInfo) []string {
	platforms := []string{}
	for _, d := range m.Manifests {
		platforms = AddPlatform(platforms, d.Platform)
	}
	return platforms
}

// AddPlatform adds a platform if it is known and not in the list yet.
func AddPlatform(platforms []string, p *lexicon.Platform) []string {
	if p == nil || len(platforms) == MaxPlatforms {
		return platforms
	}
	name := post.Platform(p.OS, p.Architecture, p.Variant)
	if name == "" || slices.Contains(platforms, name) {
		return platforms
	}
	return append(platforms, name)
}
