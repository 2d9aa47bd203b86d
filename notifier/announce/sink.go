package announce

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Name is the name of the sink.
const Name = "announce"

// A Sink writes one post for each digest that is pushed to a public repository under a
// tag that is announced.
//
// The first push of a digest opens a window of the length Collect; further tags of
// the digest that are pushed in it are named in the same post, which has the key
// and the time of the first push. The sink's cursor stays before the oldest open
// window, so a window survives a restart: its events are read again.
//
// A digest that was announced in a repository is announced there again only under a
// tag that makes it the release of an announced pre-release, or with Retags under
// any new tag.
//
// Posts go through the outbox. Before a post is sent, and again before it is sent a
// second time, storage is asked whether the image still exists under its tags.
type Sink struct {
	sink.Deps
	Config
	posts *History
	clock *event.Clock
	now   func() time.Time
}

// New returns the sink. It adds its posts to the history, and tells the age of a push by
// clock.
func New(deps sink.Deps, cfg Config, posts *History, clock *event.Clock, now func() time.Time) (*Sink, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Sink{Deps: deps, Config: cfg, posts: posts, clock: clock, now: now}, nil
}

// Name implements sink.Sink.
func (s *Sink) Name() string { return Name }

// Skip does nothing: the sink has no position of its own.
func (s *Sink) Skip(uint64) error { return nil }

// An announcement is a finished post with its key, and its sources.
type announcement struct {
	Repository string     `json:"repository"`
	Digest     string     `json:"digest"`
	Seqs       []uint64   `json:"seqs"`
	Tags       []string   `json:"tags"` // in the order of their pushes; empty if an earlier version wrote it
	Time       time.Time  `json:"time"`
	TID        int64      `json:"tid"`
	ClockID    uint       `json:"clockId"`
	Local      bool       `json:"local"` // the image is in this registry's storage
	Facts      post.Facts `json:"facts"` // except those that depend on the tags
	Write      repo.Write `json:"write"`
}

// announcementBatch is the content of the outbox.
type announcementBatch struct {
	Posts []announcement `json:"posts"`
}

// maxPosts is how many posts a batch may have.
const maxPosts = 100

func (s *Sink) outbox() *delivery.Outbox {
	return delivery.NewOutbox(s.State, state.AnnounceOutbox, s.Revision)
}

// Confirm sends the posts in the outbox, without those that are not to be written any more.
func (s *Sink) Confirm(ctx context.Context) error {
	return delivery.Confirm(ctx, s.outbox(), s.recheckBatch, func(ctx context.Context, batch *announcementBatch) error {
		return s.send(ctx, batch, false)
	})
}

// Handle writes the posts of the windows that have ended. The first event of the oldest
// open window is the first that is left.
func (s *Sink) Handle(ctx context.Context, events []event.Sequenced) (int, time.Time, error) {
	if err := s.Confirm(ctx); err != nil {
		return 0, time.Time{}, err
	}
	windows, err := s.windows(events)
	if err != nil {
		return 0, time.Time{}, err
	}
	batch, done, wake, err := s.closeWindows(ctx, windows, len(events))
	if len(batch.Posts) == 0 {
		return done, wake, err
	}
	// err recurs in the next call, after these posts are sent.
	if err := s.outbox().Put(&state.Batch{}, batch); err != nil {
		return 0, time.Time{}, err
	}
	if err := s.send(ctx, batch, true); err != nil {
		return 0, time.Time{}, err
	}
	return done, wake, nil
}

// recheckBatch checks again the posts that are missing in the repo: whether their
// repository is public, their age, and whether the images still have their tags. It
// reports whether it has changed the batch.
func (s *Sink) recheckBatch(ctx context.Context, batch *announcementBatch) (changed bool, err error) {
	for i := len(batch.Posts) - 1; i >= 0; i-- {
		a := &batch.Posts[i]
		done, err := s.Account.Done(ctx, a.Write)
		if errors.Is(err, delivery.ErrConflict) || done || len(a.Tags) == 0 {
			continue // send handles a conflict; what an earlier version wrote is sent as it is
		}
		if err != nil {
			return changed, err
		}
		before, err := s.posts.get(a.Repository, a.Digest)
		if err != nil {
			return changed, err
		}
		tags, refused, err := s.check(ctx, a, before)
		if err != nil {
			return changed, err
		}
		if refused.Reason == "" && len(tags) < len(a.Tags) {
			a.Tags, changed = tags, true
			if err := s.compose(a); err != nil {
				refused.Reason = err.Error()
			}
		}
		if refused.Reason == "" {
			continue
		}
		var b state.Batch
		for _, seq := range a.Seqs {
			if err := pushrow.Put(&b, seq, pushrow.AnnouncePart, refused); err != nil {
				return changed, err
			}
		}
		if err := s.State.Commit(&b, state.NoSync); err != nil {
			return changed, err
		}
		s.Log.Info("not announced: "+refused.Reason, "repository", a.Repository, "digest", a.Digest)
		batch.Posts = slices.Delete(batch.Posts, i, i+1)
		changed = true
	}
	return changed, nil
}
