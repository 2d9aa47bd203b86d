package announce

import (
	"bytes"
	"context"
	"errors"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/publication"
)

// Before a post is given up it is tried without what is not needed: its picture, then its
// document. The bytes that were sent before stay in the announcement, because they may be
// written although the call that sent them has failed.
//
// A state that was restored from a backup does not know the forms that were made after the
// backup. So a record at the key of a post is taken for the post if it announces the same
// image: nobody else uses our keys.

// earlier is a form of a post, and of its document, that may have been sent.
type earlier struct {
	Post     []byte      `json:"post"`
	Document *documented `json:"document,omitempty"`
	Pictured bool        `json:"pictured,omitempty"`
}

// form is the present form of a post.
func (a *announcement) form() earlier { return earlier{a.Write.Record, a.Document, a.Card.inPost()} }

// earlierForms are the forms of a post that may have been sent.
func (a *announcement) earlierForms() []earlier {
	if a.Card == nil || len(a.Card.Before) == 0 {
		return a.Earlier
	}
	return append([]earlier{{Post: a.Card.Before, Pictured: true}}, a.Earlier...)
}

// restore makes an earlier form the present one.
func (a *announcement) restore(e earlier) {
	a.Write.Record, a.Document, a.Earlier = e.Post, e.Document, nil
	if a.Card != nil {
		a.Card.Dropped, a.Card.Before = !e.Pictured, nil
	}
}

// rescue handles the refusal of a post or its document. It reports whether the batch is to
// be sent again.
func (s *Sink) rescue(ctx context.Context, batch *announcementBatch, invalid *repo.WriteError) (again bool, err error) {
	i, document := batch.locate(invalid.Index)
	if i < 0 {
		return false, nil
	}
	a := &batch.Posts[i]
	conflict := errors.Is(invalid, delivery.ErrConflict) || errors.Is(invalid, repo.ErrExists)
	if conflict {
		if again, err := s.writtenBefore(ctx, batch, a); again || err != nil {
			return again, err
		}
	}
	switch {
	case conflict && !document:
		return false, nil
	case conflict:
		if again, err := s.adoptDocument(ctx, batch, a); again || err != nil {
			return again, err
		}
		return true, s.dropDocument(ctx, batch, a, invalid)
	case a.Card.inPost() && errors.Is(invalid, repo.ErrBlobNotFound) && !s.cards.again[a.Card.Picture.CID]:
		s.cards.uploadAgain(a.Card.Picture.CID)
		return true, nil
	case a.Card.inPost():
		if err := s.dropCard(a, "refused", invalid); err != nil {
			return false, err
		}
		return true, s.putIf(batch, true)
	case a.Document != nil:
		return true, s.dropDocument(ctx, batch, a, invalid)
	}
	return false, nil
}

// writtenBefore reports whether the record at the key of a post is an earlier form of it,
// and if so makes that the post again.
func (s *Sink) writtenBefore(ctx context.Context, batch *announcementBatch, a *announcement) (bool, error) {
	for _, e := range a.earlierForms() {
		if bytes.Equal(e.Post, a.Write.Record) {
			continue
		}
		before := a.Write
		before.Record = e.Post
		done, err := s.Account.Done(ctx, before)
		if err != nil && !errors.Is(err, delivery.ErrConflict) {
			return false, err
		}
		if done {
			a.restore(e)
			return true, s.putIf(batch, true)
		}
	}
	return s.adopt(ctx, batch, a)
}

// adopt makes the record at the key of a post the post, if it announces the same image.
func (s *Sink) adopt(ctx context.Context, batch *announcementBatch, a *announcement) (bool, error) {
	_, value, err := s.Account.Get(ctx, a.Write.Collection, a.Write.RKey)
	if errors.Is(err, repo.ErrNotFound) || err == nil && bytes.Equal(value, a.Write.Record) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	image, ok := Origin(repo.Record{Value: value})
	if !ok || image.Repository != a.Repository || image.Digest != a.Digest {
		return false, nil
	}
	s.Log.Info("the account has another form of a post, as after a restored backup", "repository", a.Repository, "digest", a.Digest)
	a.restore(earlier{Post: value, Document: a.Document})
	return true, s.putIf(batch, true)
}

// adoptDocument makes the record at the key of a document the document, if it is the one with
// the reference to the post, and the post is in the repo: it was written after the backup.
func (s *Sink) adoptDocument(ctx context.Context, batch *announcementBatch, a *announcement) (bool, error) {
	done, err := s.Account.Done(ctx, a.Write)
	if errors.Is(err, delivery.ErrConflict) || err == nil && !done {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, value, err := s.Account.Get(ctx, lexicon.NSIDDocument, a.Write.RKey)
	if errors.Is(err, repo.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	first, err := publication.WithoutPost(value)
	if err != nil || !bytes.Equal(first, a.Document.Record) || bytes.Equal(value, first) {
		return false, nil
	}
	a.Document = &documented{a.Document.URI, a.Document.Site, value}
	return true, s.putIf(batch, true)
}
