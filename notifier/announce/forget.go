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
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How the posts of an owner or a repository are deleted
//
// An event event.OpForgetOwner or event.OpPurge ends what the sink handles at once, so that all
// earlier events are decided and all later ones are not. From then on a version whose last push
// precedes the event is not announced (purge.go). After a purge, and with Retract after the
// other, the posts are deleted as well. Post and history do not name the owner, so all posts of
// the account are read, in pages: a page marks posts in the history as deleted and adds the rows
// that retract works off, in one commit with the position. No other event is handled before
// the last page, so a push after the event is announced like that of a new image. After a crash
// the next page is that after the position. A sink that was rewound deletes no posts again,
// since they may be those of later pushes.

// A forgetting is the value of state.AnnounceForget: the posts that are being deleted, of an
// owner or of a repository.
type forgetting struct {
	Owner      string `json:"owner,omitempty"`
	Repository string `json:"repository,omitempty"`
	Seq        uint64 `json:"seq"`             // of the event
	After      string `json:"after,omitempty"` // record key of the last post that was read
}

// has reports whether a post about an image is to be deleted.
func (f *forgetting) has(image post.Image, ownerOf func(repository string) string) bool {
	if f.Repository != "" {
		return image.Repository == f.Repository
	}
	return ownerOf(image.Repository) == f.Owner
}

// reasons are why a post is deleted, in its row and in the results of its pushes.
func (f *forgetting) reasons() (row, result string) {
	if f.Repository != "" {
		return posted.DeletedPurged, reasonPurged
	}
	return posted.DeletedOwner, reasonForgotten
}

// deletesPosts reports whether an event may delete the posts of an owner or a repository.
func deletesPosts(e *event.Sequenced) bool {
	return e.Operation == event.OpForgetOwner || e.Operation == event.OpPurge
}

// forgetPage is how many posts are read at a time.
const forgetPage = 500

// throughForget returns the events up to the first that deletesPosts and is not decided.
func throughForget(events []event.Sequenced, p decided.Events) []event.Sequenced {
	i := slices.IndexFunc(events, func(e event.Sequenced) bool {
		return deletesPosts(&e) && !p.Has(e.Seq)
	})
	if i < 0 {
		return events
	}
	return events[:i+1]
}

// forget adds to the decision that the posts of an owner or a repository are deleted, if the
// last of the first done events says so.
func (d *decision) forget(events []event.Sequenced, done int, p decided.Events) error {
	if done == 0 || !deletesPosts(&events[done-1]) || events[done-1].Seq <= max(p.Through, p.Again) {
		return nil
	}
	e := events[done-1]
	d.changed, d.durable = true, true
	if e.Operation == event.OpPurge {
		if err := d.versions.DeleteRepository(&d.b, e.Repository); err != nil {
			return err
		}
		return d.set(state.AnnounceForget, forgetting{Repository: e.Repository, Seq: e.Seq})
	}
	if err := d.forgotten.Put(&d.b, e.UserDID, e.Result()); err != nil || !d.Retract {
		return err
	}
	return d.set(state.AnnounceForget, forgetting{Owner: e.UserDID, Seq: e.Seq})
}

// forgetPosts deletes the posts of the last such event, unless they are deleted.
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
		_, reason := f.reasons()
		if err := d.removeResults(d.retracted, reason); err != nil {
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
	_, why := f.reasons()
	d.Log.Info("posts are deleted: "+why, "owner", f.Owner, "repository", f.Repository, "event", f.Seq)
	return nil
}

// forgetPost deletes a post of f. The versions that joined it can be announced again.
func (d *decision) forgetPost(r repo.Record, f forgetting) error {
	image, ok := Origin(r)
	if !ok || !f.has(image, d.OwnerOf) {
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
	row, _, err := posted.Read(d.State, &d.b, r.RKey)
	if err != nil {
		return err
	}
	err = posted.EachImage(d.State, r.RKey, row, func(joined posted.Image) error {
		return d.posts.MarkDeleted(&d.b, joined.Repository, joined.Digest, []string{r.RKey})
	})
	if err != nil {
		return err
	}
	why, _ := f.reasons()
	if err := d.noteDeleted(r.RKey, why); err != nil {
		return err
	}
	d.retracted = append(d.retracted, r.RKey)
	if err := d.set(retractionKey(r.RKey), retraction{Repository: image.Repository, Digest: image.Digest, RKey: r.RKey, Seq: f.Seq}); err != nil {
		return err
	}
	return d.posts.MarkDeleted(&d.b, image.Repository, image.Digest, []string{r.RKey})
}
