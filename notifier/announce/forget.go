package announce

import (
	"context"
	"errors"
	"slices"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/decided"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How the posts of an owner are deleted
//
// An event event.OpForgetOwner ends what the sink handles at once, so that all earlier events
// are decided and all later ones are not. From then on a version whose last push precedes
// the event is not announced. With Retract the posts of the owner's images are deleted as
// well. Post and history do not name the owner, so all posts of the account are read, in
// pages: a page marks the posts of the owner in the history as deleted and adds the rows that
// retract works off, in one commit with the position. No other event is handled before the
// last page, so a push after the event is announced like that of a new image. After a crash
// the next page is that after the position.

// A forgetting is the value of state.AnnounceForget: the posts of an owner that are being
// deleted.
type forgetting struct {
	Owner string `json:"owner"`
	Seq   uint64 `json:"seq"`             // of the event
	After string `json:"after,omitempty"` // record key of the last post that was read
}

// forgetPage is how many posts are read at a time.
const forgetPage = 500

// throughForget returns the events up to the first that deletes the data of an owner and is
// not decided; all if there is none.
func throughForget(events []event.Sequenced, p decided.Events) []event.Sequenced {
	i := slices.IndexFunc(events, func(e event.Sequenced) bool {
		return e.Operation == event.OpForgetOwner && !p.Has(e.Seq)
	})
	if i < 0 {
		return events
	}
	return events[:i+1]
}

// forget adds to the decision that the data of an owner is deleted, if the last of the first
// done events says so.
func (d *decision) forget(events []event.Sequenced, done int, p decided.Events) error {
	if done == 0 || events[done-1].Operation != event.OpForgetOwner || p.Has(events[done-1].Seq) {
		return nil
	}
	e := events[done-1]
	d.changed, d.durable = true, true
	if err := d.forgotten.Put(&d.b, e.UserDID, e.Result()); err != nil || !d.Retract {
		return err
	}
	return d.set(state.AnnounceForget, forgetting{Owner: e.UserDID, Seq: e.Seq})
}

// forgetPosts deletes the posts of an owner whose data is being deleted, if there is one.
func (s *Sink) forgetPosts(ctx context.Context) error {
	for {
		d := s.newDecision()
		var f forgetting
		pending, err := d.get(state.AnnounceForget, &f)
		if err != nil || !pending {
			return err
		}
		if err := d.forgetPage(ctx, f); err != nil {
			return err
		}
		if err := d.removeResults(d.retracted, reasonForgotten); err != nil {
			return err
		}
		d.durable = true
		if err := d.commit(ctx); err != nil {
			return err
		}
	}
}

// forgetPage reads the next page of posts.
func (d *decision) forgetPage(ctx context.Context, f forgetting) error {
	posts := 0
	err := d.Account.EachAfter(ctx, lexicon.NSIDPost, f.After, func(r repo.Record) error {
		if posts == forgetPage {
			return state.ErrStop
		}
		posts++
		f.After = r.RKey
		return d.forgetPost(r, f)
	})
	switch {
	case errors.Is(err, state.ErrStop):
		return d.set(state.AnnounceForget, f)
	case err != nil:
		return err
	}
	d.b.Delete(state.AnnounceForget)
	d.changed = true
	d.Log.Info("the posts of an owner's images are deleted, as the owner asked", "owner", f.Owner, "event", f.Seq)
	return nil
}

// forgetPost deletes a post if its image is one of the owner and no other post is about it.
func (d *decision) forgetPost(r repo.Record, f forgetting) error {
	image, ok := Origin(r)
	if !ok || d.OwnerOf(image.Repository) != f.Owner {
		return nil
	}
	es, err := d.posts.GetAfter(&d.b, image.Repository, image.Digest)
	if err != nil {
		return err
	}
	own := slices.ContainsFunc(es.Live(), func(e posted.Entry) bool { return e.RKey == r.RKey && !e.Joined && !e.Withdrawn })
	if !own {
		return nil
	}
	if err := d.versions.DeleteImage(&d.b, image.Repository, image.Digest); err != nil {
		return err
	}
	if err := d.noteDeleted(r.RKey, posted.DeletedOwner); err != nil {
		return err
	}
	d.retracted = append(d.retracted, r.RKey)
	if err := d.set(retractionKey(r.RKey), retraction{Repository: image.Repository, Digest: image.Digest, RKey: r.RKey, Seq: f.Seq}); err != nil {
		return err
	}
	return d.posts.MarkDeleted(&d.b, image.Repository, image.Digest, []string{r.RKey})
}

// wasForgotten reports whether the data of a version's owner was deleted after its last push.
func (s *Sink) wasForgotten(v *version) (bool, error) {
	owner := s.OwnerOf(v.Repository)
	if owner == "" {
		return false, nil
	}
	return s.forgotten.Since(owner, slices.Max(v.Seqs))
}
