package event

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// A Plan is what each sink does for an event. It depends on the event alone; what was done
// before can make parts of it unnecessary: the ledger for records, the post history for
// posts.
type Plan struct {
	Records []Layer      // in the order of their keys
	Odd     *OddLayers   `json:",omitempty"` // nil: each layer has a record, unchanged
	Post    bool         // whether it may be announced
	Counted *counts.Fact // nil: it is not counted
}

// A Layer is a layer that has a record.
type Layer struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
}

// PlanOf returns the plan of an event.
func PlanOf(e *Event) Plan {
	var p Plan
	switch e.Operation {
	case OpPush:
		p.Records, p.Odd = LayersOf(&e.Manifest)
		p.Post = e.Tag != "" && !e.Foreign && (e.Kind == KindImage || e.Kind == KindIndex)
	case OpPull:
	case OpUntag:
		p.Counted = &counts.Fact{Repository: e.Name(), Tag: e.Tag, Deleted: true, Time: e.Time}
		return p
	case OpDelete:
		p.Counted = &counts.Fact{Repository: e.Name(), Digest: e.ManifestDigest, Deleted: true, Time: e.Time}
		return p
	default:
		return p
	}
	p.Counted = &counts.Fact{
		Repository: e.Name(),
		Tag:        e.Tag,
		Digest:     e.ManifestDigest,
		Class:      e.Class,
		Time:       e.Time,
		Children:   e.Children,
		Supporting: e.Operation == OpPush && e.Kind.Supporting(),
		Unlisted:   e.Unlisted,
	}
	return p
}

// LayersOf returns the layers that have a record: each digest once, and none that has URLs,
// since it is stored elsewhere. A layer with an impossible size, or without a valid digest
// that fits into a record, is left out; an invalid media type is replaced. The other layers
// are not affected.
func LayersOf(m *lexicon.ManifestInfo) ([]Layer, *OddLayers) {
	var odd OddLayers
	var layers []Layer
	seen := make(map[string]struct{}, len(m.Layers))
	for _, l := range m.Layers {
		if len(l.URLs) > 0 {
			continue
		}
		if _, again := seen[l.Digest]; again && l.Digest != "" {
			continue
		}
		seen[l.Digest] = struct{}{}
		if l.Digest == "" || len(l.Digest) > lexicon.MaxLayerText {
			odd.Digests++
			continue
		}
		if l.Size < 0 || l.Size > maxBlob {
			odd.Sizes++
			continue
		}
		mediaType := cleanMediaType(l.MediaType)
		if mediaType != l.MediaType {
			odd.MediaTypes++
		}
		layers = append(layers, Layer{l.Digest, l.Size, mediaType})
	}
	if odd == (OddLayers{}) {
		return layers, nil
	}
	return layers, &odd
}

// OddLayers counts layers that have no record, or one with another media type.
type OddLayers struct {
	Digests    int `json:",omitempty"` // no record: the digest is missing, invalid, or too long for a record
	Sizes      int `json:",omitempty"` // no record: the size is invalid
	MediaTypes int `json:",omitempty"` // a record with another media type
}

// Skipped is the number of layers without a record.
func (o *OddLayers) Skipped() int { return o.Digests + o.Sizes }

// String is the reason that the API shows.
func (o *OddLayers) String() string {
	var reasons []string
	for _, s := range []struct {
		n    int
		text string
	}{
		{o.Digests, "no record for %s without a valid digest of at most 128 bytes"},
		{o.Sizes, "no record for %s with an impossible size"},
		{o.MediaTypes, "another media type in the record of %s"},
	} {
		if s.n == 1 {
			reasons = append(reasons, fmt.Sprintf(s.text, "1 layer"))
		} else if s.n > 1 {
			reasons = append(reasons, fmt.Sprintf(s.text, strconv.Itoa(s.n)+" layers"))
		}
	}
	return strings.Join(reasons, "; ")
}
