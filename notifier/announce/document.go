package announce

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/publication"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How a version gets its document
//
// The post of a version shows the preview of its page. With a Site, a
// site.standard.document of the page is written before the post in the same call, under the
// same key, and the preview names the document and the publication, each with its CID. Both
// records are in the outbox with their bytes, so what is said about posts in a crash is true
// of both.
//
// Once the post is written, an update adds the reference to it to the document; see
// publication.References.
//
// The picture of the post is the cover of the document. When it is added or dropped, the
// document changes first, then its CID in the post.
//
// A document neither delays nor blocks a post, unless the account as a whole cannot be
// reached or written to: if the account refuses the publication or the document, or the
// publication fails again and again, the post is written without it. A document that is in
// the repo without its post, because a call was divided, is deleted like the posts of
// deleted images.
type documented struct {
	URI    string   `json:"uri"`
	Site   post.Ref `json:"site"` // the publication
	Record []byte   `json:"record"`
}

// ref identifies the document.
func (d *documented) ref() post.Ref { return post.Ref{URI: d.URI, CID: block.CIDOf(d.Record).String()} }

// withCover returns the document with another cover, a blob; nil: none.
func (d *documented) withCover(blob map[string]any) (*documented, error) {
	if d == nil {
		return nil, nil
	}
	record, err := publication.WithCover(d.Record, blob)
	return &documented{d.URI, d.Site, record}, err
}

// documentWrite is the write of the document.
func (a *announcement) documentWrite() repo.Write {
	return repo.Write{Action: repo.Create, Collection: lexicon.NSIDDocument, RKey: a.Write.RKey, Record: a.Document.Record}
}

// writes are the records of the announcement, in the order in which they are written.
func (a *announcement) writes() []repo.Write {
	if a.Document == nil {
		return []repo.Write{a.Write}
	}
	return []repo.Write{a.documentWrite(), a.Write}
}

// writes are the records of the batch.
func (b *announcementBatch) writes() (writes []repo.Write) {
	for i := range b.Posts {
		writes = append(writes, b.Posts[i].writes()...)
	}
	return writes
}

// locate returns the post that has one of writes, and whether that is its document; -1:
// none.
func (b *announcementBatch) locate(write int) (i int, document bool) {
	for i := range b.Posts {
		n := len(b.Posts[i].writes())
		if write >= 0 && write < n {
			return i, write < n-1
		}
		write -= n
	}
	return -1, false
}

// pageOf returns what the document of a version says, and the preview of its page; nil if
// it has no page below the publication.
func (s *Sink) pageOf(a *announcement, facts post.Facts) (*publication.Document, post.Picture) {
	if s.Site == nil {
		return nil, post.Picture{}
	}
	link, err := post.NormalizeLink(s.Page(a.Repository, facts.Tags[0], a.Digest))
	path, below := strings.CutPrefix(link, s.Site.URL())
	if err != nil || !below || !strings.HasPrefix(path, "/") {
		s.Log.Warn("a version has no document, since its page is not below the publication", "repository", a.Repository, "page", link, "error", err)
		return nil, post.Picture{}
	}
	facts.Link = link
	_, preview := facts.Card(s.Host)
	lines := []string{preview.Title, preview.About}
	if len(facts.Tags) > 1 {
		lines = append(lines, "Also tagged "+strings.Join(facts.Tags[1:], ", "))
	}
	if facts.Reference != "" {
		lines = append(lines, "docker pull "+facts.Reference)
	}
	if preview.About != a.Digest {
		lines = append(lines, a.Digest)
	}
	return &publication.Document{
		Path: path, Title: preview.Title, Description: preview.About, Text: strings.Join(lines, "\n"), Tags: facts.Hashtags, Published: time.UnixMicro(a.TID),
	}, preview
}

// addDocument adds the document to a post that is to be sent. It returns an error if the
// account can't be reached or written to.
func (s *Sink) addDocument(ctx context.Context, a *announcement) error {
	if a.page == nil {
		return nil
	}
	site, err := s.site.Written(ctx)
	if err != nil || site.CID == "" {
		return err
	}
	record, err := a.page.Record(site.URI)
	if err == nil {
		d := &documented{URI: "at://" + s.posts.Account() + "/" + lexicon.NSIDDocument + "/" + a.Write.RKey, Site: site, Record: record}
		err = a.edit(func(record map[string]any) error { post.SetReferences(record, d.ref(), site); return nil })
		if err == nil {
			a.Document = d
			return nil
		}
	}
	s.Metrics.Document("invalid")
	s.Log.Warn("a post is written without a document", "repository", a.Repository, "digest", a.Digest, "error", err)
	return nil
}

// setPicture adds a picture to a post and its document.
func (a *announcement) setPicture(p post.Picture) error {
	blob, err := p.Blob()
	if err != nil {
		return err
	}
	return a.picture(blob, func(record map[string]any) error { return post.SetPicture(record, p) })
}

// removePicture removes the picture from a post and its document.
func (a *announcement) removePicture() error {
	return a.picture(nil, func(record map[string]any) error { post.RemovePicture(record); return nil })
}

// picture changes the cover of the document, and then the post.
func (a *announcement) picture(cover map[string]any, change func(record map[string]any) error) error {
	document, err := a.Document.withCover(cover)
	if err != nil {
		return err
	}
	err = a.edit(func(record map[string]any) error {
		if err := change(record); err != nil || document == nil {
			return err
		}
		post.SetReferences(record, document.ref(), document.Site)
		return nil
	})
	if err == nil {
		a.Document = document
	}
	return err
}

// dropDocument removes the document of a post, and puts the batch. A post that is in the
// repo already stays as it is.
func (s *Sink) dropDocument(ctx context.Context, batch *announcementBatch, a *announcement, reason error) error {
	done, err := s.Account.Done(ctx, a.Write)
	if err != nil && !errors.Is(err, delivery.ErrConflict) {
		return err
	}
	d := s.newDecision()
	before := a.form()
	if !done {
		if err := d.deleteDocument(ctx, a); err != nil {
			return err
		}
		if err := a.edit(func(record map[string]any) error { post.SetReferences(record); return nil }); err != nil {
			return err
		}
		a.Earlier = append(a.Earlier, before)
	}
	a.Document = nil
	s.Metrics.Document("refused")
	s.Log.Warn("a post is written without its document", "repository", a.Repository, "digest", a.Digest, "error", reason)
	return s.outbox().Put(&d.b, batch)
}

// deleteDocument decides to delete the document of a post that is not in the repo, if the
// document is.
func (d *decision) deleteDocument(ctx context.Context, a *announcement) error {
	if a.Document == nil {
		return nil
	}
	done, err := d.Account.Done(ctx, a.documentWrite())
	if err != nil && !errors.Is(err, delivery.ErrConflict) || !done {
		if errors.Is(err, delivery.ErrConflict) {
			err = nil
		}
		return err
	}
	return d.set(retractionKey(a.Write.RKey), retraction{Repository: a.Repository, Digest: a.Digest, RKey: a.Write.RKey, Seq: a.Seqs[0], DocumentOnly: true})
}

// writeReferences adds to documents the references to their posts, and returns when it is to be
// called again. While posts of an owner or a repository are to be deleted and not all are found,
// it adds none.
func (s *Sink) writeReferences(ctx context.Context) (next time.Time, err error) {
	forgetting, err := state.Has(s.State, state.AnnounceForget)
	if forgetting || err != nil || s.DryRun {
		return time.Time{}, err
	}
	return s.refs.Write(ctx), nil
}

// documentKey is the record key of the document, "" if there is none.
func (a *announcement) documentKey() string {
	if a.Document == nil {
		return ""
	}
	return a.Write.RKey
}
