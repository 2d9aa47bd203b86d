package announce

import (
	"context"
	"errors"
	"slices"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
)

// send writes the posts and records them. One that the repo refuses for good is given
// up, and the others are written.
func (s *Sink) send(ctx context.Context, batch *announcementBatch, fresh bool) error {
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
func (s *Sink) finish(ctx context.Context, batch *announcementBatch) error {
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
func (s *Sink) drop(batch *announcementBatch, invalid *repo.WriteError) error {
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
func (s *Sink) record(b *state.Batch, a *announcement, result pushrow.Announce) error {
	p := Entry{Tags: a.Tags}
	if result.PostURI != "" {
		p.RKey = a.Write.RKey
	}
	if len(a.Tags) > 0 {
		p.Tags = s.tagOrder(a.Tags)
	}
	if err := s.posts.Add(b, a.Repository, a.Digest, p); err != nil {
		return err
	}
	for _, seq := range a.Seqs {
		if err := pushrow.Put(b, seq, pushrow.AnnouncePart, result); err != nil {
			return err
		}
	}
	return nil
}
