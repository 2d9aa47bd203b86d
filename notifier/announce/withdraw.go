package announce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Errors of Withdraw and Announcement.
var (
	ErrPostURI     = errors.New("this is no URI of a post of the account")
	ErrUnknownPost = errors.New("this registry has not written such a post")
	ErrPostDeleted = errors.New("the post is already deleted")
	ErrBusy        = errors.New("the announce sink is busy; try again in a minute")
	ErrRefused     = errors.New("the account refuses to delete the post")
)

const (
	turnTimeout   = 30 * time.Second // how long a request waits while the sink waits for its account
	deleteTimeout = 20 * time.Second // after which a record is deleted later
)

// A Withdrawal is the result of Withdraw.
type Withdrawal struct {
	URI     string `json:"uri"`
	Missing bool   `json:"missing,omitempty"` // the account did not have the post any more
	Pending string `json:"pending,omitempty"` // why the record is deleted later; "": it is deleted
}

// Withdraw deletes a post, with the document of its version. One commit marks the post in the
// history as withdrawn, so that its images are not announced again under its tags, removes
// it from the versions of pages and feeds and from the results of pushes, and adds the row
// that deletes the record (ondelete.go). Then the record is deleted, at once if the account
// can be written to. Crash cases:
//
//   - Before the commit: nothing has happened.
//   - After it: the row is there until the record is deleted.
//
// A post that somebody has deleted in the account is treated in the same way.
func (s *Sink) Withdraw(ctx context.Context, uri string) (Withdrawal, error) {
	rkey, err := s.postIn(uri)
	if err != nil {
		return Withdrawal{}, err
	}
	release, err := s.beginSoon(ctx)
	if err != nil {
		return Withdrawal{}, err
	}
	defer release()
	row, ok, err := posted.Read(s.State, new(state.Batch), rkey)
	switch {
	case err != nil:
		return Withdrawal{}, err
	case !ok:
		return Withdrawal{}, fmt.Errorf("%w: %s", ErrUnknownPost, uri)
	case row.Deleted != "" && row.Problem == "":
		return Withdrawal{}, fmt.Errorf("%w (%s, %s): %s", ErrPostDeleted, posted.Deletion(row.Deleted), row.DeletedAt.UTC().Format(time.RFC3339), uri)
	}
	result := Withdrawal{URI: uri}
	if _, _, err := s.deletes.Get(ctx, lexicon.NSIDPost, rkey); errors.Is(err, repo.ErrNotFound) {
		result.Missing = true
	}
	if err := s.decideWithdrawal(rkey, row); err != nil {
		return Withdrawal{}, err
	}
	s.Log.Info("a post is withdrawn", "repository", row.Repository, "digest", row.Digest, "post", uri)
	result.Pending, err = s.deleteNow(ctx, rkey)
	return result, err
}

// postIn returns the record key in the URI of a post of the account.
func (s *Sink) postIn(uri string) (rkey string, err error) {
	at, err := syntax.ParseATURI(uri)
	if err != nil || at.RecordKey() == "" {
		return "", fmt.Errorf("%w: %q is not at://DID/%s/KEY", ErrPostURI, uri, lexicon.NSIDPost)
	}
	if account := at.Authority().String(); account != s.posts.Account() {
		return "", fmt.Errorf("%w: %s is of %s, and the account is %s", ErrPostURI, uri, account, s.posts.Account())
	}
	if collection := at.Collection().String(); collection != lexicon.NSIDPost {
		return "", fmt.Errorf("%w: %s is in the collection %s, and posts are in %s", ErrPostURI, uri, collection, lexicon.NSIDPost)
	}
	return at.RecordKey().String(), nil
}

// beginSoon is begin for a request, which does not wait for long.
func (s *Sink) beginSoon(ctx context.Context) (release func(), err error) {
	short, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	release, err = s.begin(short)
	if err != nil && ctx.Err() == nil {
		err = ErrBusy
	}
	return release, err
}

// decideWithdrawal makes durable that a post is withdrawn.
func (s *Sink) decideWithdrawal(rkey string, row posted.Post) error {
	d := s.newDecision()
	err := posted.EachImage(s.State, rkey, row, func(image posted.Image) error {
		if err := d.posts.Withdraw(&d.b, image.Repository, image.Digest, rkey); err != nil {
			return err
		}
		return d.versions.RemovePost(&d.b, image.Repository, image.Name, rkey)
	})
	if err != nil {
		return err
	}
	if err := d.noteDeleted(rkey, posted.DeletedWithdrawn); err != nil {
		return err
	}
	if err := d.removeResults([]string{rkey}, reasonWithdrawn); err != nil {
		return err
	}
	if err := d.set(retractionKey(rkey), retraction{Repository: row.Repository, Digest: row.Digest, RKey: rkey}); err != nil {
		return err
	}
	return d.State.Commit(&d.b, state.Sync)
}

// noteDeleted notes in the row of a post that it is being deleted.
func (d *decision) noteDeleted(rkey, why string) error {
	row, ok, err := posted.Read(d.State, &d.b, rkey)
	if err != nil || !ok {
		return err
	}
	row.Deleted, row.DeletedAt, row.Problem = why, d.now().UTC(), ""
	return d.set(posted.Key(rkey), row)
}

// removeResults removes posts from the results of the pushes that have rows.
func (d *decision) removeResults(rkeys []string, reason string) error {
	if len(rkeys) == 0 {
		return nil
	}
	deleted := map[string]bool{}
	for _, rkey := range rkeys {
		deleted[d.posts.URI(rkey)] = true
	}
	return d.State.Scan(state.Prefix(state.Pushes), func(key, val []byte) error {
		if _, part := pushrow.ParseKey(key); part != pushrow.AnnouncePart || !bytes.Contains(val, []byte("at://")) {
			return nil
		}
		var result pushrow.Announce
		if err := json.Unmarshal(val, &result); err != nil {
			return fmt.Errorf("read the result of a push: %w", err)
		}
		if !deleted[result.PostURI] {
			return nil
		}
		return d.set(bytes.Clone(key), pushrow.Announce{Reason: reason})
	})
}

// deleteNow deletes the record of a withdrawn post, or says why that happens later.
func (s *Sink) deleteNow(ctx context.Context, rkey string) (pending string, err error) {
	if s.DryRun {
		return "announce.dry_run is set, so nothing is written", nil
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	next, err := s.retract(ctx)
	if err != nil {
		return "", err
	}
	left, err := s.deleting(rkey)
	switch {
	case err != nil:
		return "", err
	case left:
		return "the account cannot be written to at the moment; the next attempt is at " + next.UTC().Format(time.RFC3339), nil
	}
	row, _, err := posted.Read(s.State, new(state.Batch), rkey)
	if err == nil && row.Problem != "" {
		err = fmt.Errorf("%w: %s", ErrRefused, row.Problem)
	}
	return "", err
}

// giveUpDelete gives up a delete that the account refuses for good.
func (s *Sink) giveUpDelete(b *state.Batch, r retraction, refused error) error {
	if r.Seq > 0 {
		return s.GiveUp(r.Seq, refused)
	}
	s.Log.Error("the account refuses to delete a withdrawn post", "post", s.posts.URI(r.RKey), "error", refused)
	row, ok, err := posted.Read(s.State, b, r.RKey)
	if err != nil || !ok {
		return err
	}
	row.Problem = refused.Error()
	return row.Set(b, r.RKey)
}
