package announce

import (
	"context"
	"slices"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
)

// finish records the posts as written and clears the outbox.
func (s *Sink) finish(ctx context.Context, batch *announcementBatch) error {
	var b state.Batch
	for _, a := range batch.Posts {
		uri := s.posts.URI(a.Write.RKey)
		if err := s.record(&b, &a, pushrow.Announce{PostURI: uri}); err != nil {
			return err
		}
		if a.Document != nil {
			s.refs.Add(&b, a.Write.RKey)
		}
		s.countFinished(&a)
		s.Log.Info("announced", "repository", a.Repository, "digest", a.Digest, "versions", a.versions(), "post", uri)
	}
	if err := s.outbox().Clear(ctx, &b); err != nil {
		return err
	}
	for _, a := range batch.Posts {
		s.Posted(s.posts.URI(a.Write.RKey), s.now())
	}
	return nil
}

// seqs are the events of a post.
func (a *announcement) seqs() (all []uint64) {
	for _, v := range a.Others {
		all = append(all, v.Seqs...)
	}
	return append(all, a.Seqs...)
}

// versions is how many versions a post stands for.
func (a *announcement) versions() int {
	if a.isSummary() {
		return len(a.Others)
	}
	return len(a.Others) + 1
}

func (s *Sink) countFinished(a *announcement) {
	outcome, others := "posted", "joined"
	if a.isSummary() {
		outcome, others = "summary", "summarized"
	}
	s.Metrics.Post(outcome)
	if a.Document != nil {
		s.Metrics.Document("written")
	}
	for range a.Others {
		s.Metrics.Post(others)
	}
}

// drop gives up a post that the repo refuses. It is recorded in the history, so
// that its window does not open again.
func (s *Sink) drop(ctx context.Context, batch *announcementBatch, invalid *repo.WriteError) error {
	i, _ := batch.locate(invalid.Index)
	if i < 0 {
		return invalid
	}
	return s.giveUp(ctx, batch, i, invalid)
}

// giveUp gives up the post i of a batch with its events.
func (s *Sink) giveUp(ctx context.Context, batch *announcementBatch, i int, reason error) error {
	a := batch.Posts[i]
	for _, seq := range a.seqs() {
		if err := s.GiveUp(seq, reason); err != nil {
			return err
		}
	}
	batch.Posts = slices.Delete(batch.Posts, i, i+1)
	d := s.newDecision()
	if err := d.deleteDocument(ctx, &a); err != nil {
		return err
	}
	if err := s.record(&d.b, &a, pushrow.Announce{Reason: reason.Error()}); err != nil {
		return err
	}
	return s.outbox().Put(&d.b, batch)
}

// record adds to b what became of an announcement and of the versions that joined it.
func (s *Sink) record(b *state.Batch, a *announcement, result pushrow.Announce) error {
	if !a.isSummary() {
		if err := s.recordVersion(b, &a.version, a.Write.RKey, a.documentKey(), result); err != nil {
			return err
		}
		if err := s.noteTags(b, &a.version, result); err != nil {
			return err
		}
	}
	if result.PostURI != "" {
		if err := s.notePost(b, a); err != nil {
			return err
		}
		result.Joined, result.Reason = true, "in a summary"
		if !a.isSummary() {
			result.Reason = "joined the post of " + a.Repository + ":" + s.tagOrder(a.Tags)[0]
		}
	}
	for _, v := range a.Others {
		if err := s.recordVersion(b, &v, a.Write.RKey, "", result); err != nil {
			return err
		}
	}
	return nil
}

// recordVersion adds a version to the history, and the result of its pushes. document is the
// key of its document, "" if it has none.
func (s *Sink) recordVersion(b *state.Batch, v *version, rkey, document string, result pushrow.Announce) error {
	p := posted.Entry{Tags: v.Tags, Joined: result.Joined}
	if result.PostURI != "" {
		p.RKey = rkey
	}
	if len(v.Tags) > 0 {
		p.Tags = s.tagOrder(v.Tags)
	}
	if err := s.posts.Add(b, v.Repository, v.Digest, p); err != nil {
		return err
	}
	if err := s.putVersion(b, v, p, document); err != nil {
		return err
	}
	for _, seq := range v.Seqs {
		if err := pushrow.Put(b, seq, pushrow.AnnouncePart, result); err != nil {
			return err
		}
	}
	return nil
}
