package notifier

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

// supporting reports whether manifests of this kind describe another image and are not
// pulled for themselves.
func (k Kind) supporting() bool { return k == KindSignature || k == KindAttestation }

// countedAs is the kind for the classifier. Pulls of charts and other artifacts count
// like those of images.
func (k Kind) countedAs(tag string) string {
	_, refers := classify.ReferrersTag(tag)
	switch {
	case k.supporting() || refers:
		return "artifact"
	case k == KindIndex:
		return "index"
	}
	return "image"
}

const (
	mediaTypeDockerList   = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"
	mediaTypeChartConfig  = "application/vnd.cncf.helm.config.v1+json"
)

// readManifest parses what the sinks need of a stored manifest. Docker's schema 2 and OCI
// manifests have the same member names. The registry has parsed the manifest before, but
// not all members: those that it does not parse may have any JSON, and are left out if
// they are invalid.
func readManifest(mediaType string, payload []byte) (lexicon.ManifestInfo, error) {
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
	if isIndex(mediaType) {
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
	return filterManifest(info), nil
}

// unparsedMembers are those that the registry does not parse.
type unparsedMembers struct {
	ArtifactType json.RawMessage `json:"artifactType"`
	Subject      json.RawMessage `json:"subject"`
}

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == mediaTypeDockerList
}

// kindOf returns the kind of a manifest.
func kindOf(m *lexicon.ManifestInfo, tag string) Kind {
	config := ""
	if m.Config != nil {
		config = m.Config.MediaType
	}
	kind := kindOfParts(m.MediaType, m.ArtifactType, config, tag, func(yield func(string) bool) {
		for i := range m.Layers {
			if !yield(m.Layers[i].MediaType) {
				return
			}
		}
	})
	if m.Subject != nil && !kind.supporting() {
		return KindArtifact
	}
	return kind
}

// kindOfParts returns the kind from members of a manifest that the registry has parsed,
// so that a pull parses nothing.
func kindOfParts(mediaType, artifactType, config, tag string, layers iter.Seq[string]) Kind {
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
	case isIndex(mediaType):
		if artifactType != "" {
			return KindArtifact
		}
		return KindIndex
	case config == mediaTypeChartConfig:
		return KindChart
	case artifactType != "", config != v1.MediaTypeImageConfig && config != mediaTypeDockerConfig:
		return KindArtifact
	}
	return KindImage
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

// sizeOf is the size of an image without its manifest, as the manifest declares it: config
// and layers that the registry has, each digest once. It is 0 if it is not known, and for
// an index, whose images have manifests of their own.
func sizeOf(m *lexicon.ManifestInfo) int64 {
	return sumSizes(blobsOf(m))
}

// sumSizes is the sum of the sizes of blobs; 0 if one of them is not known or invalid.
func sumSizes(blobs map[string]int64) int64 {
	var total int64
	for digest, size := range blobs {
		if digest == "" || size < 0 || size > maxBlob || total > maxBlob {
			return 0
		}
		total += size
	}
	return total
}

// blobsOf returns the blobs of an image that the registry has, with their declared sizes.
// Layers with URLs are stored elsewhere.
func blobsOf(m *lexicon.ManifestInfo) map[string]int64 {
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

// maxPlatforms is how many platforms of an index are shown.
const maxPlatforms = 32

// platformsOf returns the platforms of an index, such as "linux/arm/v7".
func platformsOf(m *lexicon.ManifestInfo) []string {
	platforms := []string{}
	for _, d := range m.Manifests {
		platforms = addPlatform(platforms, d.Platform)
	}
	return platforms
}

// addPlatform adds a platform if it is known and not in the list yet.
func addPlatform(platforms []string, p *lexicon.Platform) []string {
	if p == nil || len(platforms) == maxPlatforms {
		return platforms
	}
	name := post.Platform(p.OS, p.Architecture, p.Variant)
	if name == "" || slices.Contains(platforms, name) {
		return platforms
	}
	return append(platforms, name)
}
