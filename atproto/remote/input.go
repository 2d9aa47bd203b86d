package remote

import (
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// maxInput limits the input of a call, in bytes. A hold of Tidings accepts no more.
const maxInput = 1_000_000

const maxKey = 128 // bytes of an Idempotency-Key

// Limits of the published schema, in bytes.
const (
	maxDigest    = 128
	maxMediaType = 256
	maxPlatform  = 64
)

// encode encodes the input of a call. Annotations are never sent: no hold reads them, and
// they may be large or meant for the registry's users only. Of an input that is still too
// large only the members of the published schema are sent, then only the layers, since
// they become records. The result is a function of the call, as a hold compares the
// inputs that come with a key.
func encode(c Call) ([]byte, error) {
	if err := checkKey(c.Key); err != nil {
		return nil, refused(pds.Refused, err)
	}
	in := c.Input
	for _, reduce := range []func(lexicon.ManifestInfo) lexicon.ManifestInfo{withoutAnnotations, published, layersOnly} {
		in.Manifest = reduce(in.Manifest)
		body, err := json.Marshal(in)
		if err != nil {
			return nil, refused(pds.Refused, err)
		}
		if len(body) > maxInput {
			continue
		}
		if _, err := lexicon.Input(lexicon.NSIDNotifyManifest, body); err != nil {
			return nil, refused(pds.Refused, fmt.Errorf("it is not sent: %w", err))
		}
		return body, nil
	}
	return nil, refused(pds.TooLarge, fmt.Errorf("it is not sent: with the layers alone it is larger than %d bytes", maxInput))
}

func checkKey(key string) error {
	valid := key != "" && len(key) <= maxKey
	for i := range len(key) {
		valid = valid && key[i] >= ' ' && key[i] <= '~'
	}
	if !valid {
		return fmt.Errorf("invalid key: it has to have 1 to %d printable ASCII characters", maxKey)
	}
	return nil
}

// withoutAnnotations also leaves out descriptors that exceed the published limits, such as
// one with a SHA-512 digest: a hold would refuse the whole call.
func withoutAnnotations(m lexicon.ManifestInfo) lexicon.ManifestInfo {
	m.Annotations = nil
	m.Config, m.Subject = blob(m.Config), blob(m.Subject)
	m.Layers, m.Manifests = valid(m.Layers), valid(m.Manifests)
	return m
}

func blob(d *lexicon.Descriptor) *lexicon.Descriptor {
	if d == nil || len(d.Digest) > maxDigest {
		return nil
	}
	reduced := *d
	reduced.Annotations = nil
	return &reduced
}

func valid(list []lexicon.Descriptor) []lexicon.Descriptor {
	var kept []lexicon.Descriptor
	for _, d := range list {
		if len(d.Digest) > maxDigest || len(d.MediaType) > maxMediaType {
			continue
		}
		if p := d.Platform; p != nil && (len(p.OS) > maxPlatform || len(p.Architecture) > maxPlatform) {
			d.Platform = nil
		}
		d.Annotations = nil
		kept = append(kept, d)
	}
	return kept
}

// published leaves out what the published schema does not have.
func published(m lexicon.ManifestInfo) lexicon.ManifestInfo {
	reduced := lexicon.ManifestInfo{MediaType: m.MediaType}
	for _, b := range []struct{ from, to **lexicon.Descriptor }{{&m.Config, &reduced.Config}, {&m.Subject, &reduced.Subject}} {
		if d := *b.from; d != nil {
			*b.to = &lexicon.Descriptor{Digest: d.Digest, Size: d.Size}
		}
	}
	for _, d := range m.Layers {
		reduced.Layers = append(reduced.Layers, lexicon.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	}
	for _, d := range m.Manifests {
		child := lexicon.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
		if d.Platform != nil {
			child.Platform = &lexicon.Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture}
		}
		reduced.Manifests = append(reduced.Manifests, child)
	}
	return reduced
}

func layersOnly(m lexicon.ManifestInfo) lexicon.ManifestInfo {
	return lexicon.ManifestInfo{MediaType: m.MediaType, Layers: m.Layers}
}
