package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Blob describes a stored blob.
type Blob struct {
	CID      cid.Cid // CIDv1, raw, sha2-256
	Size     int64   // bytes
	MimeType string
}

// sniffBytes is how many of the first bytes Upload passes on to find the type.
const sniffBytes = 4096

// Upload stores a blob of up to limit bytes and returns once it is durable. It
// is kept for an hour, and then as long as a record refers to it. mimeType is
// called with the first bytes; a blob that is already stored keeps its type. The
// body is written to disk while it is received.
//
// A crash leaves a temporary file, or a file without a row; both are removed by
// the next Open. Errors: ErrTooLarge, ErrNoSpace, ErrClosed and those of reading
// the body: nothing was stored.
func (r *Repo) Upload(ctx context.Context, body io.Reader, limit int64, mimeType func(head []byte) string) (Blob, error) {
	if err := r.store.Space(); err != nil {
		return Blob{}, err
	}
	path, blob, err := r.receive(body, limit, mimeType)
	if err != nil {
		return Blob{}, err
	}
	defer r.blobs.FS.Remove(path) // fails once the file has its final name
	_, err = r.submit(request{ctx: context.WithoutCancel(ctx), work: func(w *writer, b store.Batch) (err error) {
		blob, err = w.addBlob(b, path, blob)
		return err
	}})
	if err != nil {
		return Blob{}, fmt.Errorf("store blob: %w", err)
	}
	return blob, nil
}

// receive writes a body to a temporary file. After an error there is none.
func (r *Repo) receive(body io.Reader, limit int64, mimeType func([]byte) string) (path string, blob Blob, err error) {
	temp, file, err := r.blobs.Create()
	if err != nil {
		return "", Blob{}, fmt.Errorf("store blob: %w", layout.DiskFull(err))
	}
	defer func() {
		if err != nil {
			r.blobs.FS.Remove(temp)
		}
	}()
	sum, head := sha256.New(), &headBuffer{}
	// The file is last: a vfs.File may change the bytes that it is given.
	size, err := io.Copy(io.MultiWriter(sum, head, file), io.LimitReader(body, limit+1))
	if err != nil {
		return "", Blob{}, errors.Join(fmt.Errorf("receive blob: %w", layout.DiskFull(err)), file.Close())
	}
	if size > limit {
		return "", Blob{}, errors.Join(fmt.Errorf("%w: a blob of more than %d bytes", ErrTooLarge, limit), file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return "", Blob{}, fmt.Errorf("store blob: %w", layout.DiskFull(err))
	}
	return temp, Blob{block.Digest(sum.Sum(nil)).BlobCID(), size, mimeType(head.bytes)}, nil
}

// addBlob gives a file its final name and its row. The goroutine that writes does
// both, since it also removes files.
func (w *writer) addBlob(b store.Batch, path string, blob Blob) (Blob, error) {
	d, _ := block.BlobDigest(blob.CID)
	row, err := w.blobs.row(d)
	if err != nil {
		return Blob{}, err
	}
	if err := w.files.Rename(path, d); err != nil {
		return Blob{}, layout.DiskFull(err)
	}
	edit := blobEdit{}
	edit.clearIdle(d, &row)
	if !row.Stored {
		row.Stored, row.Size, row.MIME = true, blob.Size, blob.MimeType
	}
	edit.put(d, row, w.cfg.Now())
	w.blobs.apply(b, edit)
	return Blob{blob.CID, row.Size, row.MIME}, nil
}

// headBuffer keeps the first bytes that are written to it.
type headBuffer struct{ bytes []byte }

func (h *headBuffer) Write(b []byte) (int, error) {
	h.bytes = append(h.bytes, b[:min(len(b), sniffBytes-len(h.bytes))]...)
	return len(b), nil
}
