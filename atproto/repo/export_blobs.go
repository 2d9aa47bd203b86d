package repo

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
)

// blobPage is how many blobs are looked up at once.
const blobPage = 500

// ExportBlobs appends the blobs that records refer to, as far as they are
// stored, to what Export wrote: further blocks of the same CAR. It returns how
// many.
func (r *Repo) ExportBlobs(ctx context.Context, w io.Writer) (n int64, err error) {
	out := bufio.NewWriterSize(w, 64<<10)
	last := cid.Undef
	for {
		page, err := r.ListBlobs(ctx, "", last, blobPage)
		if err != nil {
			return n, fmt.Errorf("export: %w", err)
		}
		for _, c := range page {
			last = c
			b, err := r.Blob(c)
			if errors.Is(err, ErrBlobNotFound) {
				continue // nobody has uploaded it
			}
			if err == nil {
				err = r.exportBlob(ctx, out, b)
			}
			if err != nil {
				return n, fmt.Errorf("export: %w", err)
			}
			n++
		}
		if len(page) < blobPage {
			return n, out.Flush()
		}
	}
}

func (r *Repo) exportBlob(ctx context.Context, out io.Writer, b Blob) error {
	body, err := r.OpenBlob(b)
	if err != nil {
		return err
	}
	defer body.Close()
	id := b.CID.Bytes()
	head := append(binary.AppendUvarint(nil, uint64(len(id))+uint64(b.Size)), id...)
	if _, err := out.Write(head); err != nil {
		return err
	}
	_, err = io.Copy(out, untilDone{ctx, body})
	return err
}
