package notifier

import (
	"context"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// Pull records an answer that is about to go out. It fails nothing: what could
// not be recorded is a number in the metrics.
func (n *Notifier) Pull(p Pull) {
	class, tag, fresh := n.Rule.Class(counter.Request{
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
	now := n.Now()
	e := Event{
		Version:  eventVersion,
		Time:     now.UTC(),
		Class:    class,
		Children: fresh,
		NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository:     p.Repository,
			Tag:            tag,
			UserDID:        n.Owner,
			ManifestDigest: p.Digest,
			Operation:      opPull,
			Manifest:       lexicon.ManifestInfo{MediaType: p.MediaType},
		},
	}
	if _, err := n.Journal.Append(context.Background(), journal.Pulls, uint64(now.UnixMicro()), e.encodePull()); err != nil {
		n.Metrics.event(opPull, "lost")
		return
	}
	n.Metrics.event(opPull, "recorded")
}

// countedAs tells the counting rule what was pulled.
func (p *Pull) countedAs() string {
	return kindOfParts(p.MediaType, "", p.ConfigMediaType, p.Tag, func(yield func(string) bool) {
		for i := range p.Layers {
			if !yield(p.Layers[i].MediaType) {
				return
			}
		}
	}).countedAs(p.Tag)
}
