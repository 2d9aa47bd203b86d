package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// Blob is a stored blob.
type Blob struct {
	CID      cid.Cid // CIDv1, raw, sha2-256
	Size     int64   // bytes
	MimeType string
}

// sniffBytes is how much of its head Upload shows to find out what a blob is.
const sniffBytes = 4096

// Upload stores a blob of up to limit bytes and returns once it is durable. It
// is kept for an hour, and from then on while a record refers to it. mimeType
// is asked with the first bytes; a blob that is stored already keeps the type
// it had. The body goes to disk as it comes.
//
// Errors: ErrTooLarge, ErrNoSpace, ErrClosed, what reading the body says:
// nothing was stored.
func (r *Repo) Upload(ctx context.Context, body io.Reader, limit int64, mimeType func(head []byte) string) (Blob, error) {
	if err := r.store.Space(); err != nil {
		return Blob{}, err
	}
	path, blob, err := r.receive(body, limit, mimeType)
	if err != nil {
		return Blob{}, err
	}
	defer r.blobs.fs.Remove(path) // in vain, once it has its name
	_, err = r.submit(request{ctx: context.WithoutCancel(ctx), work: func(w *writer, b *pebble.Batch) (err error) {
		blob, err = w.addBlob(b, path, blob)
		return err
	}})
	if err != nil {
		return Blob{}, fmt.Errorf("store blob: %w", err)
	}
	return blob, nil
}

// receive writes a body to a file on its way in. On an error there is none.
func (r *Repo) receive(body io.Reader, limit int64, mimeType func([]byte) string) (path string, blob Blob, err error) {
	temp, file, err := r.blobs.create()
	if err != nil {
		return "", Blob{}, fmt.Errorf("store blob: %w", diskFull(err))
	}
	defer func() {
		if err != nil {
			r.blobs.fs.Remove(temp)
		}
	}()
	sum, head := sha256.New(), &headBuffer{}
	// The file comes last: a vfs.File may change the bytes that it is given.
	size, err := io.Copy(io.MultiWriter(sum, head, file), io.LimitReader(body, limit+1))
	if err != nil {
		return "", Blob{}, errors.Join(fmt.Errorf("receive blob: %w", diskFull(err)), file.Close())
	}
	if size > limit {
		return "", Blob{}, errors.Join(fmt.Errorf("%w: a blob of more than %d bytes", ErrTooLarge, limit), file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return "", Blob{}, fmt.Errorf("store blob: %w", diskFull(err))
	}
	return temp, Blob{digest(sum.Sum(nil)).cid(), size, mimeType(head.bytes)}, nil
}

func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// addBlob gives a file its name and its row. Both in the one goroutine that
// also removes files, so neither undoes the other.
func (w *writer) addBlob(b *pebble.Batch, path string, blob Blob) (Blob, error) {
	d, _ := digestOfBlob(blob.CID)
	row, _, err := w.blobs.row(d)
	if err != nil {
		return Blob{}, err
	}
	if err := w.files.place(path, d); err != nil {
		return Blob{}, diskFull(err)
	}
	edit := blobEdit{}
	if row.idle != 0 {
		edit[string(idleBlobKey(row.idle, d))] = nil
		row.idle = 0
	}
	if !row.stored {
		row.stored, row.size, row.mime = true, blob.Size, blob.MimeType
	}
	edit.put(d, row, w.cfg.Now())
	w.blobs.apply(b, edit)
	return Blob{blob.CID, row.size, row.mime}, nil
}

// headBuffer keeps the first bytes that are written to it.
type headBuffer struct{ bytes []byte }

func (h *headBuffer) Write(b []byte) (int, error) {
	h.bytes = append(h.bytes, b[:min(len(b), sniffBytes-len(h.bytes))]...)
	return len(b), nil
}
