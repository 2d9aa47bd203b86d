package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Blob describes a blob that a record refers to. Any other, such as an upload
// without a record, is ErrBlobNotFound.
func (r *Repo) Blob(c cid.Cid) (Blob, error) {
	missing := &BlobError{CID: c, Err: ErrBlobNotFound}
	d, ok := block.BlobDigest(c)
	if !ok {
		return Blob{}, missing
	}
	v, err := r.acquire()
	if err != nil {
		return Blob{}, err
	}
	defer r.release(v)
	row, _, err := layout.ReadBlob(v.snap, d)
	if err != nil {
		return Blob{}, fmt.Errorf("look up blob %s: %w", c, err)
	}
	if !row.Stored || row.Uses == 0 {
		return Blob{}, missing
	}
	return Blob{c, row.Size, row.MIME}, nil
}

// OpenBlob opens a blob that Blob found. Its last bytes are returned only if all
// of them match the CID; on a damaged disk reading ends with an error.
func (r *Repo) OpenBlob(b Blob) (io.ReadCloser, error) {
	d, ok := block.BlobDigest(b.CID)
	if !ok {
		return nil, &BlobError{CID: b.CID, Err: ErrBlobNotFound}
	}
	file, err := r.blobs.FS.Open(r.blobs.Path(d), vfs.SequentialReadsOption)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &BlobError{CID: b.CID, Err: ErrBlobNotFound}
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", b.CID, err)
	}
	return &blobReader{file, sha256.New(), d, b.Size}, nil
}

type blobReader struct {
	vfs.File
	sum  hash.Hash
	want block.Digest
	left int64
}

func (b *blobReader) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.verify()
	}
	p = p[:min(int64(len(p)), b.left)]
	n, err := b.File.Read(p)
	if err != nil && (err != io.EOF || n == 0) {
		if err == io.EOF {
			err = fmt.Errorf("blob %s is truncated: %w", b.want.BlobCID(), layout.ErrDamaged)
		}
		return 0, err
	}
	b.sum.Write(p[:n])
	b.left -= int64(n)
	if b.left > 0 {
		return n, nil
	}
	if err := b.verify(); err != io.EOF {
		return 0, err
	}
	return n, nil
}

// verify returns io.EOF if the bytes match the CID.
func (b *blobReader) verify() error {
	if block.Digest(b.sum.Sum(nil)) != b.want {
		return fmt.Errorf("bytes of blob %s don't match the CID: %w", b.want.BlobCID(), layout.ErrDamaged)
	}
	return io.EOF
}

// ListBlobs returns up to limit blobs that records refer to, stored or not, in
// the order of their digests, after the blob after (cid.Undef: from the first).
// With since, a rev, it returns only blobs of records that were written later,
// which may take a scan over all references.
func (r *Repo) ListBlobs(ctx context.Context, since string, after cid.Cid, limit int) ([]cid.Cid, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	it, err := v.iterate(layout.PrefixBlobUse, after)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var found []cid.Cid
	for ok := it.First(); ok && len(found) < limit; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := block.Digest(it.Key()[len(layout.PrefixBlobUse):])
		rev, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		if string(rev) <= since {
			ok = it.Next()
			continue
		}
		found = append(found, d.BlobCID())
		ok = it.SeekGE(layout.End(layout.PrefixBlobUse + string(d[:])))
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return found, nil
}

// MissingBlob is a blob that a record refers to and that was not uploaded.
type MissingBlob struct {
	CID              cid.Cid
	Collection, RKey string // a record that refers to it
}

// MissingBlobs lists the blobs that an import still needs, paged like ListBlobs.
func (r *Repo) MissingBlobs(after cid.Cid, limit int) ([]MissingBlob, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	it, err := v.iterate(layout.PrefixBlobUse, after)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var found []MissingBlob
	for ok := it.First(); ok && len(found) < limit; {
		d := block.Digest(it.Key()[len(layout.PrefixBlobUse):])
		row, _, err := layout.ReadBlob(v.snap, d)
		if err != nil {
			return nil, fmt.Errorf("list missing blobs: %w", err)
		}
		if !row.Stored {
			collection, rkey := mst.SplitPath(string(it.Key()[len(layout.PrefixBlobUse)+block.DigestSize:]))
			found = append(found, MissingBlob{d.BlobCID(), collection, rkey})
		}
		ok = it.SeekGE(layout.End(layout.PrefixBlobUse + string(d[:])))
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list missing blobs: %w", err)
	}
	return found, nil
}

// iterate returns an iterator over the keys that consist of a prefix, a digest and
// more, for digests after that of a blob.
func (v *view) iterate(prefix string, afterBlob cid.Cid) (store.Iterator, error) {
	lower := []byte(prefix)
	if d, ok := block.BlobDigest(afterBlob); ok {
		lower = layout.End(prefix + string(d[:]))
	}
	it, err := v.snap.NewIter(store.Range{Start: lower, End: layout.End(prefix)})
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return it, nil
}
