package pds

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// UploadBlobMethod is the Error.Method of uploads, as opposed to that of their session.
const UploadBlobMethod = "com.atproto.repo.uploadBlob"

// uploadTime is for an upload, its answer included. It is shorter than callTime, since a
// post waits for its picture.
const uploadTime = 20 * time.Second

// UploadBlob stores a blob, which a record must refer to soon: a PDS deletes others after
// some hours. Every error is an *Error. Uploading the same content again has no effect.
//
// It costs no points. A PDS has another limit for uploads (the reference PDS 1,000 a
// day), so an *Error with Outcome Limited says nothing of writes.
func (a *Account) UploadBlob(ctx context.Context, mediaType string, content []byte) (repo.Blob, error) {
	ctx, cancel := context.WithTimeout(ctx, uploadTime)
	defer cancel()
	if err := a.Resolve(ctx); err != nil {
		return repo.Blob{}, err
	}
	var out struct {
		Blob struct {
			Ref struct {
				Link string `json:"$link"`
			} `json:"ref"`
			MimeType string `json:"mimeType"`
			Size     int64  `json:"size"`
		} `json:"blob"`
	}
	r := request{method: UploadBlobMethod, post: true, repo: true, blob: &blob{mediaType, content}}
	if _, err := a.authorized(ctx, r, &out); err != nil {
		return repo.Blob{}, err
	}
	id := block.Digest(sha256.Sum256(content)).BlobCID()
	if out.Blob.Ref.Link != id.String() || out.Blob.Size != int64(len(content)) {
		return repo.Blob{}, &Error{Method: UploadBlobMethod, Status: http.StatusOK, Outcome: Refused,
			Err: fmt.Errorf("the answer is about a blob %s of %d bytes, not %s of %d", guard.Printable(out.Blob.Ref.Link, 100), out.Blob.Size, id, len(content))}
	}
	return repo.Blob{CID: id, Size: out.Blob.Size, MimeType: out.Blob.MimeType}, nil
}

// blobNotFound is the error name of a write with a blob that the PDS does not have. The
// message names the blob: "Could not find blob: bafk…".
const blobNotFound = "BlobNotFound"

var blobInMessage = regexp.MustCompile(`\bb[a-z2-7]{58}\b`)

// missingBlob returns the index of the first write with the blob that the PDS does not
// have; -1 if it is not known.
func missingBlob(e *Error, writes []repo.Write) int {
	if e.Name != blobNotFound {
		return -1
	}
	id, err := cid.Decode(blobInMessage.FindString(e.Message))
	if err != nil {
		return -1
	}
	return slices.IndexFunc(writes, func(w repo.Write) bool {
		blobs, err := lexicon.BlobsIn(w.Record)
		for _, b := range blobs {
			if err == nil && b.Ref.CID() == id {
				return true
			}
		}
		return false
	})
}
