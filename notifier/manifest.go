package notifier

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/post"
)

// Kind says what a manifest is for.
type Kind string

const (
	KindImage       Kind = "image"
	KindIndex       Kind = "index"
	KindChart       Kind = "chart"
	KindSignature   Kind = "signature"
	KindAttestation Kind = "attestation"
	KindArtifact    Kind = "artifact"
)

// supporting reports that manifests of this kind say something about another
// image and are not fetched for themselves.
func (k Kind) supporting() bool { return k == KindSignature || k == KindAttestation }

// countedAs tells the counting rule what was pulled. Charts and artifacts that
// people fetch for themselves are pulled as images are.
func (k Kind) countedAs(tag string) string {
	_, refers := counter.ReferrersTag(tag)
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

// readManifest reads what the sinks need of a stored manifest. The members of
// Docker's schema 2 and of OCI manifests have the same names. The registry has
// read the manifest before, but for the members that a manifest of its media type
// does not have there: those may hold anything, and are left out if they are not
// what they should be.
func readManifest(mediaType string, payload []byte) (lexicon.ManifestInfo, error) {
	var image struct {
		describing
		Config *lexicon.Descriptor  `json:"config"`
		Layers []lexicon.Descriptor `json:"layers"`
	}
	var index struct {
		describing
		Manifests []lexicon.Descriptor `json:"manifests"`
	}
	info := lexicon.ManifestInfo{MediaType: mediaType}
	into, also := any(&image), &image.describing
	if isIndex(mediaType) {
		into, also = &index, &index.describing
	}
	if err := json.Unmarshal(payload, into); err != nil {
		return info, fmt.Errorf("read manifest: %w", err)
	}
	info.Config, info.Layers, info.Manifests = image.Config, image.Layers, index.Manifests
	if json.Unmarshal(also.ArtifactType, &info.ArtifactType) != nil {
		info.ArtifactType = ""
	}
	if json.Unmarshal(also.Subject, &info.Subject) != nil {
		info.Subject = nil
	}
	return filtered(info), nil
}

// describing are the members of a manifest that the registry does not read.
type describing struct {
	ArtifactType json.RawMessage `json:"artifactType"`
	Subject      json.RawMessage `json:"subject"`
}

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == mediaTypeDockerList
}

// kindOf tells what a pushed manifest is for.
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

// kindOfParts tells the same from what the registry's own parsed manifest
// gives, so that a pull parses nothing.
func kindOfParts(mediaType, artifactType, config, tag string, layers iter.Seq[string]) Kind {
	if suffix, ok := counter.ReferrersTag(tag); ok {
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

// supportingKind is the kind that a media type alone gives away. A pull has the
// registry's own parsed manifest, in which nothing is filtered: what the filter
// would take out gives nothing away.
func supportingKind(s string) Kind {
	if signsOf(s) == "" { // as nearly always
		return ""
	}
	return signsOf(cleanMediaType(s))
}

func signsOf(s string) Kind {
	for _, sign := range []string{"cosign.simplesigning", "cosign.artifact.sig", "notary.signature", "sigstore.bundle"} {
		if strings.Contains(s, sign) {
			return KindSignature
		}
	}
	if strings.Contains(s, "in-toto") || strings.Contains(s, "dsse.envelope") {
		return KindAttestation
	}
	return ""
}

// sizeOf is how many bytes a client pulls of an image beside its manifest: the
// config and each layer that the registry has, each digest once, as the manifest
// declares them. 0: it is not known, or it is an index, whose images are pushed by
// themselves.
func sizeOf(m *lexicon.ManifestInfo) int64 {
	return sum(blobsOf(m))
}

// sum adds up the sizes of blobs; 0 if one of them is not known or impossible.
func sum(blobs map[string]int64) int64 {
	var total int64
	for digest, size := range blobs {
		if digest == "" || size < 0 || size > maxBlob || total > maxBlob {
			return 0
		}
		total += size
	}
	return total
}

// blobsOf gives the blobs of an image that the registry has, with the sizes that
// the manifest declares. Layers with URLs are elsewhere.
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

// maxPlatforms is how many platforms of an index are named.
const maxPlatforms = 32

// platformsOf lists what the images of an index run on, as "linux/arm/v7".
func platformsOf(m *lexicon.ManifestInfo) []string {
	platforms := []string{}
	for _, d := range m.Manifests {
		platforms = addPlatform(platforms, d.Platform)
	}
	return platforms
}

// addPlatform adds a platform that is known and not in the list yet.
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
