package delivery

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// An embedded account keeps a blob once a record refers to it, and frees it with the record.
func TestUploadBlobEmbedded(t *testing.T) {
	t.Parallel()
	r := newAccount(t).repo
	p := OnEmbedded(r)
	content := []byte("a picture")
	id := block.Digest(sha256.Sum256(content)).BlobCID()
	want := repo.Blob{CID: id, Size: int64(len(content)), MimeType: "image/png"}
	picture := func(blob repo.Blob) repo.Write {
		record, err := lexicon.Marshal(map[string]any{"$type": collection, "picture": map[string]any{
			"$type": "blob", "ref": atdata.CIDLink(blob.CID), "mimeType": blob.MimeType, "size": blob.Size,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return repo.Write{Action: repo.Create, Collection: collection, RKey: key(0), Record: record}
	}
	write := picture(want)
	err := NewRepo(p).Deliver(t.Context(), []repo.Write{write}, true)
	var at *repo.WriteError
	if !errors.As(err, &at) || !errors.Is(err, repo.ErrBlobNotFound) {
		t.Fatalf("a write before its upload: got %v, want ErrBlobNotFound for the write", err)
	}
	for range 2 {
		if got, err := p.UploadBlob(t.Context(), "image/png", content); err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if err := NewRepo(p).Deliver(t.Context(), []repo.Write{write}, true); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Blob(id); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := NewRepo(p).Deliver(t.Context(), deletes([]repo.Write{write}), true); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Blob(id); !errors.Is(err, repo.ErrBlobNotFound) {
		t.Errorf("after the record was deleted: got %v, want ErrBlobNotFound", err)
	}
}
