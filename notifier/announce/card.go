package announce

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/card"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How a post gets its picture
//
// A post is composed without a picture, with the facts for one in its announcement. Before
// the post is sent:
//
//  1. The picture is drawn, and the post refers to it. The CID of a blob is known before
//     it is uploaded, so these bytes are put into the outbox.
//  2. The picture is uploaded. A PDS keeps a blob without a record for a while, the
//     embedded account for an hour.
//  3. The post is written.
//
// Trouble with a picture neither delays nor blocks a post. If it can't be drawn or
// uploaded, or the account refuses the post with it, it is dropped: the post's bytes
// without it are put into the outbox before they are sent. After a failed upload posts
// have no pictures for a while. Only if the whole account can't be reached or written to,
// the post waits with its picture.
//
// Crash cases:
//
//   - Before 1 is durable: nothing was sent; the picture is drawn again.
//   - After it, or if the answer to 3 is lost: the posts are read back first, and nothing
//     is changed in a post that is in the repo. For the others the picture is drawn again
//     from the same facts and uploaded again, which has no effect if it was before. A
//     newer program may draw another picture; then it is dropped.
//   - A post may have been sent with its picture, and be written after it was read back
//     and its picture was dropped. The bytes without it then find another record at their
//     key. It is compared with those with the picture, which the announcement keeps.
//
// A document of the version has the same picture and is written with the post; see
// documented.
type pictured struct {
	Facts   card.Facts   `json:"facts"`
	Picture post.Picture `json:"picture"`           // with its CID once the post refers to it
	Dropped bool         `json:"dropped,omitempty"` // the post has no picture
	Before  []byte       `json:"before,omitempty"`  // the post with its picture, as an earlier version of the program kept it
}

// inPost reports whether the post refers to the picture.
func (p *pictured) inPost() bool { return p != nil && p.Picture.CID != "" && !p.Dropped }

// cards is what the sink remembers of pictures while it runs.
type cards struct {
	uploaded map[string]time.Time // when, by CID; only of posts that are being sent
	again    map[string]bool      // that the account did not have at the write, by CID
	paused   time.Time            // posts have no pictures until then
}

const (
	uploadTries = 2
	uploadKept  = 30 * time.Minute // how long an upload is relied on
	cardPause   = 10 * time.Minute // after an upload that failed
)

// cardOf returns the facts of a post's picture; nil if there is none.
func (s *Sink) cardOf(facts post.Facts) *pictured {
	if !s.Config.Card {
		return nil
	}
	drawn, picture := facts.Card(s.Host)
	return &pictured{Facts: drawn, Picture: picture}
}

// prepareCards adds pictures to the posts that are not in the repo yet, and uploads them.
// It returns an error if the account can't be reached or written to.
func (s *Sink) prepareCards(ctx context.Context, batch *announcementBatch, fresh bool) error {
	left, err := s.withCards(ctx, batch, fresh)
	if err != nil || len(left) == 0 {
		return err
	}
	content, changed := map[*announcement][]byte{}, false
	for _, a := range left {
		drawn, edited, err := s.drawCard(a)
		if err != nil {
			return err
		}
		content[a], changed = drawn, changed || edited
	}
	if err := s.putIf(batch, changed); err != nil {
		return err
	}
	changed = false
	for _, a := range left {
		if !a.Card.inPost() {
			continue
		}
		dropped, err := s.uploadCard(ctx, a, content[a])
		if err != nil {
			return errors.Join(err, s.putIf(batch, changed))
		}
		changed = changed || dropped
	}
	return s.putIf(batch, changed)
}

// putIf puts a batch that was changed.
func (s *Sink) putIf(batch *announcementBatch, changed bool) error {
	if !changed {
		return nil
	}
	return s.outbox().Put(&state.Batch{}, batch)
}

// withCards returns the posts that are not in the repo, and whose picture is to be drawn or
// uploaded.
func (s *Sink) withCards(ctx context.Context, batch *announcementBatch, fresh bool) ([]*announcement, error) {
	var left []*announcement
	var writes []repo.Write
	for i := range batch.Posts {
		a := &batch.Posts[i]
		if a.Card != nil && !a.Card.Dropped && !(a.Card.inPost() && s.cards.fresh(a.Card.Picture.CID, s.now())) {
			left, writes = append(left, a), append(writes, a.Write)
		}
	}
	if fresh || len(left) == 0 {
		return left, nil
	}
	missing, err := s.Account.Missing(ctx, writes)
	if errors.As(err, new(*repo.WriteError)) {
		return nil, nil // a conflict, which the delivery reports as well
	}
	if err != nil {
		return nil, err
	}
	for i, k := range missing {
		left[i] = left[k]
	}
	return left[:len(missing)], nil
}

// drawCard draws the picture of a post, adds it to the post or, if that is not possible,
// drops it, and reports whether it has changed the post.
func (s *Sink) drawCard(a *announcement) (content []byte, changed bool, err error) {
	if s.now().Before(s.cards.paused) {
		return nil, true, s.dropCard(a, "paused", errors.New("an upload has failed shortly before"))
	}
	content, err = drawn(a.Card.Facts)
	id := block.Digest(sha256.Sum256(content)).BlobCID().String()
	if err == nil && a.Card.inPost() {
		if id == a.Card.Picture.CID {
			return content, false, nil
		}
		err = errors.New("this program draws another picture than the one in the post")
	}
	if err == nil {
		p := a.Card.Picture
		p.CID, p.Size, p.MediaType = id, int64(len(content)), card.MediaType
		if err = a.setPicture(p); err == nil {
			a.Card.Picture = p
			return content, true, nil
		}
	}
	return nil, true, s.dropCard(a, "undrawn", err)
}

// drawn draws a card. A panic in it is an error.
func drawn(f card.Facts) (content []byte, err error) {
	defer sink.Recover(&err)
	return card.Draw(f)
}

// edit changes the record of a post.
func (a *announcement) edit(change func(record map[string]any) error) error {
	record, err := lexicon.Unmarshal(a.Write.Record)
	if err == nil {
		err = change(record)
	}
	if err != nil {
		return err
	}
	encoded, err := post.Encode(record)
	if err != nil {
		return err
	}
	a.Write.Record = encoded
	return nil
}

// dropCard removes the picture of a post. The caller puts the batch.
func (s *Sink) dropCard(a *announcement, outcome string, reason error) error {
	if a.Card.inPost() {
		before := a.form()
		if err := a.removePicture(); err != nil {
			return fmt.Errorf("remove the picture of a post: %w", err)
		}
		a.Earlier = append(a.Earlier, before)
	}
	a.Card.Dropped = true
	s.Metrics.Card(outcome)
	s.Log.Warn("a post is written without its picture", "repository", a.Repository, "digest", a.Digest, "error", reason)
	return nil
}

// uploadCard uploads the picture of a post, or drops it. It returns an error if the
// account can't be reached or written to.
func (s *Sink) uploadCard(ctx context.Context, a *announcement, content []byte) (dropped bool, err error) {
	if s.now().Before(s.cards.paused) {
		return true, s.dropCard(a, "paused", errors.New("an upload has failed shortly before"))
	}
	for range uploadTries {
		if _, err = s.Account.UploadBlob(ctx, card.MediaType, content); err == nil {
			s.cards.note(a.Card.Picture.CID, s.now())
			return false, nil
		}
		if ctx.Err() != nil || cannotWrite(err) {
			return false, err
		}
		if failed := (*pds.Error)(nil); errors.As(err, &failed) && failed.Outcome != pds.Unknown {
			break
		}
	}
	if _, _, unread := s.Account.Get(ctx, a.Write.Collection, a.Write.RKey); unread != nil && !errors.Is(unread, repo.ErrNotFound) {
		return false, err // the account can't be reached
	}
	s.cards.paused = s.now().Add(cardPause)
	if failed := (*pds.Error)(nil); errors.As(err, &failed) && failed.Until.After(s.cards.paused) {
		s.cards.paused = failed.Until
	}
	return true, s.dropCard(a, "not_uploaded", err)
}

// cannotWrite reports whether an upload failed because nothing can be written to the
// account. A limit of uploads says nothing of writes.
func cannotWrite(err error) bool {
	if delivery.RepoFails(err) {
		return true
	}
	var failed *pds.Error
	return errors.As(err, &failed) && (failed.Outcome == pds.Suspended || failed.Method != pds.UploadBlobMethod)
}

// fresh reports whether a picture was uploaded a short while ago.
func (c *cards) fresh(id string, now time.Time) bool {
	at, ok := c.uploaded[id]
	return ok && now.Sub(at) < uploadKept
}

func (c *cards) note(id string, now time.Time) {
	if c.uploaded == nil {
		c.uploaded = map[string]time.Time{}
	}
	c.uploaded[id] = now
}

// uploadAgain forgets the upload of a picture that the account does not have.
func (c *cards) uploadAgain(id string) {
	delete(c.uploaded, id)
	if c.again == nil {
		c.again = map[string]bool{}
	}
	c.again[id] = true
}

// countCards counts the pictures of posts that were written, and forgets them: the account
// deletes a blob with its last record.
func (s *Sink) countCards(batch *announcementBatch) {
	for _, a := range batch.Posts {
		if a.Card.inPost() {
			s.Metrics.Card("attached")
		}
	}
	s.cards.uploaded, s.cards.again = nil, nil
}
