package remote

import (
	"context"
	"errors"
	"slices"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// Reasons of a push that is not reported.
const (
	reasonDeleted = "not in storage any more"
	reasonPrivate = "the repository is not public any more"
)

var errNoOwner = errors.New("the DID of the owner is not known")

// affects reports whether an event is a push that may be reported. Manifests that were
// found in storage have no class, and what other registries report is theirs to report.
func (s *Sink) affects(e *event.Sequenced) bool {
	return e.Operation == event.OpPush && e.Class != "" && e.Inbound == nil && s.Reports(e.Name())
}

// decide returns the call of an event; nil if there is none, then possibly with a reason.
func (s *Sink) decide(e event.Sequenced, stored bool) (c *call, reason string, err error) {
	switch {
	case !s.affects(&e):
		return nil, "", nil
	case !stored:
		return nil, reasonDeleted, nil
	case e.Unreadable != nil:
		return nil, "", s.GiveUp(e.Seq, e.Unreadable)
	case e.UserDID == "": // recorded when another account wrote the records
		return nil, "", s.GiveUp(e.Seq, errNoOwner)
	}
	in := e.NotifyManifestInput
	in.Visibility = ""
	if !s.Public(e.Name()) {
		in.Visibility = lexicon.VisibilityPrivate
	}
	// The layers are those that have a record, each of them once: a hold may write one for
	// each that is listed.
	in.Manifest.Layers = nil
	for _, l := range e.Plan.Records {
		in.Manifest.Layers = append(in.Manifest.Layers, lexicon.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	c = &call{Seq: e.Seq, Name: e.Name(), Key: e.ID(), Since: s.now().UTC(), Input: in, Origin: e.Origin}
	if e.Retry != nil {
		c.Retry, c.lost, c.Since = true, true, e.Time
	}
	if e.Plan.Odd != nil {
		c.Odd = e.Plan.Odd.String()
		s.Metrics.Odd(e.Plan.Odd)
	}
	return c, "", nil
}

// load reads the outbox and removes the calls that are not wanted any more: those of events
// before first, which the journal has dropped, and those that public or storage forbid.
func (s *Sink) load(ctx context.Context, first uint64) ([]*call, error) {
	calls, err := s.readOutbox()
	if err != nil || len(calls) == 0 {
		return calls, err
	}
	var b state.Batch
	kept := slices.Clone(calls)
	for _, c := range calls {
		reason, err := s.recheck(ctx, c)
		if err != nil {
			return nil, err
		}
		if c.Seq >= first && reason == "" {
			continue
		}
		kept = without(kept, c.Seq)
		if reason != "" {
			if err := pushrow.Put(&b, c.result(), pushrow.RemotePart, pushrow.Remote{Reason: reason}); err != nil {
				return nil, err
			}
		}
	}
	if len(kept) == len(calls) {
		return calls, nil
	}
	return kept, s.putOutbox(&b, kept)
}

// recheck returns why a call may not be sent any more, "" if it may.
func (s *Sink) recheck(ctx context.Context, c *call) (reason string, err error) {
	if c.Input.Visibility != lexicon.VisibilityPrivate && !s.Public(c.Name) {
		return reasonPrivate, nil
	}
	if s.Storage == nil {
		return "", nil
	}
	has, err := s.Storage.Has(ctx, c.Input.Repository, c.Input.ManifestDigest)
	if errors.Is(err, stored.ErrUnreadable) {
		return "", nil // as when it was taken
	}
	if err != nil || has {
		return "", err
	}
	return reasonDeleted, nil
}
