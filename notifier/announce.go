package notifier

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

// Announce configures the announcements.
type Announce struct {
	Tag       func(tag string) bool                             // which tags are announced; nil: all
	Collect   time.Duration                                     // how long further tags of a digest are collected for one post
	MaxAge    time.Duration                                     // older pushes are not announced; 0: 1 h
	Retags    bool                                              // announce each new tag of an announced digest
	Langs     []string                                          // languages of the post's text
	Reference func(repository, tag string) string               // what follows "docker pull"; nil: no such line
	Link      func(repository, tag, digest string) (url string) // of the name; nil or "": none
	Posted    func(uri string, at time.Time)                    // called after a post is written; nil: none
}

func (a Announce) withDefaults() (Announce, error) {
	if a.Collect < 0 || a.MaxAge < 0 {
		return a, errors.New("collect and max_age must not be negative")
	}
	if a.Tag == nil {
		a.Tag = func(string) bool { return true }
	}
	if a.MaxAge == 0 {
		a.MaxAge = time.Hour
	}
	if a.Posted == nil {
		a.Posted = func(string, time.Time) {}
	}
	return a, nil
}

// announceSink writes one post for each digest that is pushed to a public
// repository under a tag that is announced.
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
type announceSink struct {
	sink.Deps
	Announce
	posts postHistory
	clock *event.Clock
	now   func() time.Time
}

const announceSinkName = "announce"

func (s *announceSink) Name() string { return announceSinkName }

func (s *announceSink) Skip(uint64) error { return nil }

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

func (s *announceSink) outbox() *delivery.Outbox {
	return delivery.NewOutbox(s.State, state.AnnounceOutbox, s.Revision)
}

func (s *announceSink) Confirm(ctx context.Context) error {
	var batch announcementBatch
	ok, err := s.outbox().Load(&batch)
	if err != nil || !ok {
		return err
	}
	changed, err := s.recheckBatch(ctx, &batch)
	if err != nil {
		return err
	}
	if changed {
		if err := s.outbox().Put(&state.Batch{}, &batch); err != nil {
			return err
		}
	}
	return s.send(ctx, &batch, false)
}

func (s *announceSink) Handle(ctx context.Context, events []event.Sequenced) (int, time.Time, error) {
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
func (s *announceSink) recheckBatch(ctx context.Context, batch *announcementBatch) (changed bool, err error) {
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

// send writes the posts and records them. One that the repo refuses for good is given
// up, and the others are written.
func (s *announceSink) send(ctx context.Context, batch *announcementBatch, fresh bool) error {
	for {
		writes := make([]repo.Write, len(batch.Posts))
		for i, a := range batch.Posts {
			writes[i] = a.Write
		}
		err := s.Account.Deliver(ctx, writes, fresh)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) {
			if err != nil {
				return err
			}
			return s.finish(ctx, batch)
		}
		if err := s.drop(batch, invalid); err != nil {
			return err
		}
		fresh = false
	}
}

// finish records the posts as written and clears the outbox.
func (s *announceSink) finish(ctx context.Context, batch *announcementBatch) error {
	var b state.Batch
	for _, a := range batch.Posts {
		uri := s.posts.uri(a.Write.RKey)
		if err := s.record(&b, &a, pushrow.Announce{PostURI: uri}); err != nil {
			return err
		}
		s.Metrics.Post("posted")
		s.Log.Info("announced", "repository", a.Repository, "digest", a.Digest, "post", uri)
	}
	if err := s.outbox().Clear(ctx, &b); err != nil {
		return err
	}
	for _, a := range batch.Posts {
		s.Posted(s.posts.uri(a.Write.RKey), s.now())
	}
	return nil
}

// drop gives up a post that the repo refuses. It is recorded in the history, so
// that its window does not open again.
func (s *announceSink) drop(batch *announcementBatch, invalid *repo.WriteError) error {
	if invalid.Index < 0 || invalid.Index >= len(batch.Posts) {
		return invalid
	}
	a := batch.Posts[invalid.Index]
	for _, seq := range a.Seqs {
		if err := s.GiveUp(seq, invalid); err != nil {
			return err
		}
	}
	batch.Posts = slices.Delete(batch.Posts, invalid.Index, invalid.Index+1)
	var b state.Batch
	if err := s.record(&b, &a, pushrow.Announce{Reason: invalid.Error()}); err != nil {
		return err
	}
	return s.outbox().Put(&b, batch)
}

// record adds to b what became of an announcement.
func (s *announceSink) record(b *state.Batch, a *announcement, result pushrow.Announce) error {
	p := historyEntry{tags: a.Tags}
	if result.PostURI != "" {
		p.rkey = a.Write.RKey
	}
	if len(a.Tags) > 0 {
		p.tags = s.tagOrder(a.Tags)
	}
	if err := s.posts.add(b, a.Repository, a.Digest, p); err != nil {
		return err
	}
	for _, seq := range a.Seqs {
		if err := pushrow.Put(b, seq, pushrow.AnnouncePart, result); err != nil {
			return err
		}
	}
	return nil
}
