package notifier

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
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
	_, refers := referrer(tag)
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
	var m struct {
		ArtifactType json.RawMessage `json:"artifactType"`
		Config       json.RawMessage `json:"config"`
		Layers       json.RawMessage `json:"layers"`
		Manifests    json.RawMessage `json:"manifests"`
		Subject      json.RawMessage `json:"subject"`
	}
	info := lexicon.ManifestInfo{MediaType: mediaType}
	err := json.Unmarshal(payload, &m)
	if err == nil && isIndex(mediaType) {
		err = readMember(m.Manifests, &info.Manifests)
	} else if err == nil {
		err = errors.Join(readMember(m.Config, &info.Config), readMember(m.Layers, &info.Layers))
	}
	if err != nil {
		return lexicon.ManifestInfo{MediaType: mediaType}, fmt.Errorf("read manifest: %w", err)
	}
	if readMember(m.ArtifactType, &info.ArtifactType) != nil {
		info.ArtifactType = ""
	}
	if readMember(m.Subject, &info.Subject) != nil {
		info.Subject = nil
	}
	return withoutAnnotations(info), nil
}

// readMember reads a member of a manifest into v, which stays as it is if there
// is no such member.
func readMember(raw json.RawMessage, v any) error {
	if raw == nil {
		return nil
	}
	return json.Unmarshal(raw, v)
}

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == mediaTypeDockerList
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
	if suffix, ok := referrer(tag); ok {
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

// supportingKind is the kind that a media type alone gives away.
func supportingKind(mediaType string) Kind {
	for _, sign := range []string{"cosign.simplesigning", "cosign.artifact.sig", "notary.signature", "sigstore.bundle"} {
		if strings.Contains(mediaType, sign) {
			return KindSignature
		}
	}
	if strings.Contains(mediaType, "in-toto") || strings.Contains(mediaType, "dsse.envelope") {
		return KindAttestation
	}
	return ""
}

// A client that finds no referrers API keeps what refers to a manifest under a
// tag made of its digest; cosign adds what it is.
// (https://github.com/opencontainers/distribution-spec, "Referrers Tag Schema")
var referrerTag = regexp.MustCompile(`^sha(?:256|512)-[0-9a-f]{64,128}(?:\.([a-z]+))?$`)

func referrer(tag string) (suffix string, ok bool) {
	if !strings.HasPrefix(tag, "sha") {
		return "", false
	}
	m := referrerTag.FindStringSubmatch(tag)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// sizeOf is how many bytes there are to pull of an image, each layer once, and
// 0 for an index, whose images are pushed by themselves.
func sizeOf(m *lexicon.ManifestInfo) int64 {
	var size int64
	if m.Config != nil {
		size = m.Config.Size
	}
	seen := map[string]bool{}
	for _, l := range m.Layers {
		if !seen[l.Digest] {
			seen[l.Digest] = true
			size += l.Size
		}
	}
	return size
}

// platformsOf lists what the images of an index run on, as "linux/arm/v7".
// Attestations are listed in an index under an unknown platform.
func platformsOf(m *lexicon.ManifestInfo) []string {
	platforms := []string{}
	for _, d := range m.Manifests {
		p := d.Platform
		if p == nil || p.OS == "" || p.OS == "unknown" {
			continue
		}
		name := p.OS + "/" + p.Architecture
		if p.Variant != "" {
			name += "/" + p.Variant
		}
		platforms = append(platforms, name)
	}
	return platforms
}
