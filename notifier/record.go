package notifier

import (
	"context"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// Push is a manifest that the registry is about to store.
type Push struct {
	Repository string
	Tag        string // "" for a push by digest
	Digest     string // "sha256:…"
	MediaType  string
	Payload    []byte          // the manifest's bytes; must not be changed
	Layers     int             // number of layers that it lists, with repetitions
	Listed     []v1.Descriptor // the layers, for quotas; must not be changed
	Children   []string        // digests that an index lists
	Actor      string          // user of the registry; "": anonymous
	RequestID  string
	Client     string // the client's address; only a keyed hash of it is kept, for seconds
	UserAgent  string
}

// Pull is a response with status 200 to a GET or HEAD of a manifest, which is about to
// be sent. None of its members needs parsing.
type Pull struct {
	Method          string // GET or HEAD
	Repository      string
	Tag             string // "" for a pull by digest
	Digest          string // of the requested manifest: the index, if the client got its child because it does not accept indexes
	MediaType       string // of the requested manifest
	ConfigMediaType string
	Layers          []v1.Descriptor // of an image; must not be changed
	Children        []string        // digests that an index lists
	Actor           string          // user of the registry; "": anonymous
	Client          string          // the client's address; only a keyed hash of it is kept, for seconds
	UserAgent       string
}

// Delete is a manifest or a tag that the registry is about to delete.
type Delete struct {
	Repository string
	Tag        string // "" if a manifest is deleted
	Digest     string // of the manifest; "" if a tag is deleted
	Actor      string
	RequestID  string
}

// Pull records a response that is about to be sent. It returns no error, since the
// response does not depend on it: a pull that could not be recorded is counted in the
// metrics.
func (n *Notifier) Pull(p Pull) {
	class, tag, fresh := n.classifier.Class(classify.Request{
		Method:     p.Method,
		Repository: p.Repository,
		Tag:        p.Tag,
		Digest:     p.Digest,
		Kind:       p.countedAs(),
		Children:   p.Children,
		Client:     p.Client,
		UserAgent:  p.UserAgent,
		Actor:      p.Actor,
	})
	now, owner := n.now(), n.owners.Of(p.Repository)
	e := event.Event{
		Version:     event.Version,
		Time:        now.UTC(),
		Class:       class,
		Children:    fresh,
		OwnerHandle: owner.Handle,
		NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository:     p.Repository,
			Tag:            tag,
			UserDID:        owner.DID,
			ManifestDigest: p.Digest,
			Operation:      event.OpPull,
			Manifest:       lexicon.ManifestInfo{MediaType: p.MediaType},
		},
	}
	if _, err := n.journal.Append(context.Background(), journal.Pulls, uint64(now.UnixMicro()), e.EncodePull()); err != nil {
		n.metrics.Event(event.OpPull, "lost")
		return
	}
	n.metrics.Event(event.OpPull, "recorded")
}

// countedAs is the kind of manifest for the classifier.
func (p *Pull) countedAs() string {
	return event.KindOfParts(p.MediaType, "", p.ConfigMediaType, p.Tag, func(yield func(string) bool) {
		for i := range p.Layers {
			if !yield(p.Layers[i].MediaType) {
				return
			}
		}
	}).CountedAs(p.Tag)
}
