package delivery

import (
	"bytes"
	"context"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// A Publisher writes to the repo of the account.
type Publisher interface {
	// Apply applies the writes in one commit, all or none. They are durable when it
	// returns. After a *repo.WriteError none is applied. After a *pds.Error its
	// Outcome says what is known. After any other error it is not known whether the
	// writes are applied, and the caller reads them back.
	Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error)
	// Get returns a record, or repo.ErrNotFound.
	Get(ctx context.Context, collection, rkey string) (cid.Cid, []byte, error)
	// List returns up to limit records of a collection in descending order of
	// their keys, with reverse in ascending order, and the cursor of the next page,
	// "" if there is none. A cursor is a record key; the page begins after it.
	List(ctx context.Context, collection, cursor string, limit int, reverse bool) (page []repo.Record, next string, err error)
	// Rev is the revision of the repo's last commit.
	Rev(ctx context.Context) (string, error)
	// UploadBlob stores a blob, which a record must refer to within the hour. The same
	// content may be uploaded again. The result has the media type that the account
	// keeps. After an error it is not known whether the blob is stored.
	UploadBlob(ctx context.Context, mediaType string, content []byte) (repo.Blob, error)
}

// An EmbeddedRepo is a repo of this process.
type EmbeddedRepo interface {
	Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error)
	Get(collection, rkey string) (cid.Cid, []byte, error)
	List(collection, cursor string, limit int, reverse bool) (page []repo.Record, next string, err error)
	Head() repo.Head
	Upload(ctx context.Context, body io.Reader, limit int64, mimeType func(head []byte) string) (repo.Blob, error)
}

// OnEmbedded returns the Publisher of an embedded repo.
func OnEmbedded(r EmbeddedRepo) Publisher { return embedded{r} }

type embedded struct{ EmbeddedRepo }

func (e embedded) Get(_ context.Context, collection, rkey string) (cid.Cid, []byte, error) {
	return e.EmbeddedRepo.Get(collection, rkey)
}

func (e embedded) List(_ context.Context, collection, cursor string, limit int, reverse bool) ([]repo.Record, string, error) {
	return e.EmbeddedRepo.List(collection, cursor, limit, reverse)
}

func (e embedded) Rev(context.Context) (string, error) { return e.Head().Rev, nil }

func (e embedded) UploadBlob(ctx context.Context, mediaType string, content []byte) (repo.Blob, error) {
	return e.Upload(ctx, bytes.NewReader(content), int64(len(content)), func([]byte) string { return mediaType })
}
