package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/purged"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// Previews shows what the sink would post, with the sink's own code, and writes nothing.
type Previews struct {
	Config  Config
	Storage *stored.Checked              // nil: only samples
	Public  func(repository string) bool // as sink.Deps.Public
	State   state.Store                  // may be read-only; nil: what was announced before is not known
	Account string                       // DID that posts are written to
	Now     func() time.Time
	Log     *slog.Logger
}

// A Preview is the post that an image would have if it were pushed now.
type Preview struct {
	Image   post.Image
	Record  map[string]any // the post; nil: there can be none
	Picture []byte         // of the post, a PNG; nil: none
	Reason  string         // why it would not be posted, or not now; "": it would be posted
	Waiting bool           // it would be posted later
	PostURI string         // of an earlier announcement
}

// ReasonNoTag is the reason for images without a tag for which Config.Tag is true.
const ReasonNoTag = "no tag that is announced"

// Of returns the preview of an image, as if it were pushed now under the tags, of which the
// first is the one that a client pushes. Without tags, they are those that it has in storage.
func (p Previews) Of(ctx context.Context, repository, digest string, tags []string) (Preview, error) {
	s, err := p.sink()
	if err != nil {
		return Preview{}, err
	}
	if len(tags) == 0 {
		if tags, err = s.tagsInStorage(ctx, repository, digest); err != nil {
			return Preview{}, err
		}
	}
	e, err := s.pushedNow(ctx, repository, digest, tags)
	if err != nil {
		return Preview{}, err
	}
	d := s.newDecision()
	a, preview, err := d.tryPush(ctx, &e, tags)
	if err != nil {
		return Preview{}, err
	}
	preview.Image = post.Image{Repository: repository, Digest: digest}
	if len(tags) == 0 || e.Kind != event.KindImage && e.Kind != event.KindIndex {
		return preview, nil
	}
	if a.Facts.Repository == "" { // it would not be posted
		reason, err := d.addFacts(ctx, a, e.Event)
		if err != nil || reason != "" {
			return preview, err
		}
	}
	return preview, preview.compose(s, a)
}

// Sample returns a preview with sample facts.
func (p Previews) Sample() (Preview, error) {
	s, err := p.sink()
	if err != nil {
		return Preview{}, err
	}
	facts := post.Sample(s.Annotations)
	v := version{Repository: facts.Repository, Digest: facts.Digest, Tags: facts.Tags, Facts: facts}
	at := newStamp(s.clock)
	v.Time, v.TID, v.ClockID = at.At, at.TID, at.ClockID
	var preview Preview
	return preview, preview.compose(s, &announcement{version: v})
}

// sink returns a sink that is not connected to an account.
func (p Previews) sink() (*Sink, error) {
	db := p.State
	if db == nil {
		db = noState{}
	}
	cfg := p.Config
	// Counts only add deleted tags to what storage says about a first version.
	cfg.Counted = func(context.Context, string, func(string, int64) bool) error { return nil }
	deps := sink.Deps{
		State: db, Storage: p.Storage, Public: sink.ExceptPrivate(p.Public), Log: p.Log,
		Private: sink.NewPrivateImages(db, func() uint64 { return math.MaxUint64 }), Purged: purged.New(db),
	}
	clock := event.NewClock(p.Now, event.Elapsed, 0, 0, p.Log)
	return New(deps, nil, cfg, posted.NewHistory(db, p.Account), clock, p.Now)
}

// tagsInStorage returns the tags that an image has.
func (s *Sink) tagsInStorage(ctx context.Context, repository, digest string) ([]string, error) {
	all, err := s.Storage.Tags(ctx, repository)
	if err != nil && !errors.Is(err, stored.ErrNotStored) {
		return nil, err
	}
	return s.Storage.TagsOf(ctx, repository, digest, all)
}

// pushedNow is the event that a push of an image in storage would have now.
func (s *Sink) pushedNow(ctx context.Context, repository, digest string, tags []string) (event.Sequenced, error) {
	mediaType, payload, err := s.Storage.Manifest(ctx, repository, digest)
	if err != nil {
		return event.Sequenced{}, err
	}
	e := &event.Event{Version: event.Version, MediaType: mediaType}
	e.Time, e.TID, e.ClockID = s.clock.Reserve(1)
	e.Repository, e.ManifestDigest, e.Operation = repository, digest, event.OpPush
	if len(tags) > 0 {
		e.Tag = tags[0]
	}
	e.Manifest, e.Unreadable = event.ReadManifest(mediaType, payload, s.Annotations...)
	e.Kind = event.KindOf(&e.Manifest, e.Tag)
	plan := event.PlanOf(e)
	return event.Sequenced{Event: e, Plan: &plan}, nil
}

// tryPush decides about a push, and commits nothing. The announcement has no facts if there
// would be no post.
func (d *decision) tryPush(ctx context.Context, e *event.Sequenced, tags []string) (a *announcement, p Preview, err error) {
	w := &window{first: *e, seqs: []uint64{e.Seq}, tags: tags}
	if p.Reason, err = d.unannouncedNow(e); err == nil && p.Reason == "" {
		var refused pushrow.Announce
		a, refused, err = d.announcementOf(ctx, w)
		p.Reason, p.PostURI = refused.Reason, refused.PostURI
	}
	if err == nil && p.Reason == "" {
		p.Reason, err = d.waitsNow(a)
		p.Waiting = p.Reason != ""
	}
	if a == nil {
		a = &announcement{version: d.versionOf(w)}
	}
	return a, p, err
}

// waitsNow says what an announcement would wait for; "": for nothing.
func (d *decision) waitsNow(a *announcement) (reason string, err error) {
	for _, g := range []groupID{groupOf(a.Repository), summaryGroup} {
		waits, err := state.Has(d.State, waitingKey(g, a.Repository, a.Digest))
		if waits || err != nil {
			return "waiting: it was pushed before, and is not announced yet", err
		}
	}
	reason, row, err := d.waitsFor(a)
	if reason == waitsForCooldown {
		reason += d.cooledAt(row)
	}
	return reason, err
}

// compose adds the post of an announcement with its picture.
func (p *Preview) compose(s *Sink, a *announcement) error {
	if tags := slices.DeleteFunc(slices.Clone(a.Tags), s.Exclude); len(tags) > 0 {
		a.Tags = tags
	}
	if err := s.compose(a); err != nil {
		return err
	}
	if a.Card != nil {
		content, _, err := s.drawCard(a)
		if err != nil {
			return err
		}
		if a.Card.inPost() {
			p.Picture = content
		}
	}
	record, err := lexicon.Unmarshal(a.Write.Record)
	if err != nil {
		return fmt.Errorf("decode post: %w", err)
	}
	p.Record = record
	p.Image, _ = post.Origin(record)
	return nil
}

// noState is a store that has nothing.
type noState struct{}

func (noState) Get([]byte) ([]byte, error)                          { return nil, state.ErrNotFound }
func (noState) Scan(state.Range, func(key, val []byte) error) error { return nil }
func (noState) Commit(*state.Batch, state.Durability) error {
	return errors.New("previews change nothing")
}
