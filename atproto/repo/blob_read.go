package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
)

// Blob says what a blob is that a record refers to; ErrBlobNotFound for any
// other, also for one that waits for its record.
func (r *Repo) Blob(c cid.Cid) (Blob, error) {
	missing := &BlobError{CID: c, Err: ErrBlobNotFound}
	d, ok := digestOfBlob(c)
	if !ok {
		return Blob{}, missing
	}
	v, err := r.acquire()
	if err != nil {
		return Blob{}, err
	}
	defer r.release(v)
	row, _, err := (&blobIndex{db: v.snap}).row(d)
	if err != nil {
		return Blob{}, fmt.Errorf("look up blob %s: %w", c, err)
	}
	if !row.stored || row.uses == 0 {
		return Blob{}, missing
	}
	return Blob{c, row.size, row.mime}, nil
}

// OpenBlob reads a blob that Blob found. The last bytes come only if all of
// them are those that the CID names: on a disk that forgot some, reading ends
// with an error.
func (r *Repo) OpenBlob(b Blob) (io.ReadCloser, error) {
	d, ok := digestOfBlob(b.CID)
	if !ok {
		return nil, &BlobError{CID: b.CID, Err: ErrBlobNotFound}
	}
	file, err := r.blobs.fs.Open(r.blobs.path(d), vfs.SequentialReadsOption)
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
	want digest
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
			err = fmt.Errorf("blob %s is cut short: %w", b.want.cid(), errDamaged)
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

// verify is io.EOF for the right bytes.
func (b *blobReader) verify() error {
	if digest(b.sum.Sum(nil)) != b.want {
		return fmt.Errorf("blob %s has other bytes: %w", b.want.cid(), errDamaged)
	}
	return io.EOF
}

// ListBlobs returns up to limit blobs that records refer to, stored or not, in
// an order of their own, after the blob after (cid.Undef: from the first). With
// since, a rev, only those that a record names which was written later; to find
// few of them may take a look at all that records refer to.
func (r *Repo) ListBlobs(ctx context.Context, since string, after cid.Cid, limit int) ([]cid.Cid, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	it, err := v.iterate(prefixBlobUse, after)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var found []cid.Cid
	for ok := it.First(); ok && len(found) < limit; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := digest(it.Key()[len(prefixBlobUse):])
		rev, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		if string(rev) <= since {
			ok = it.Next()
			continue
		}
		found = append(found, d.cid())
		ok = it.SeekGE(behind(prefixBlobUse, d))
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return found, nil
}

// MissingBlob is one that a record refers to and nobody has uploaded.
type MissingBlob struct {
	CID              cid.Cid
	Collection, RKey string // a record that refers to it
}

// MissingBlobs lists as ListBlobs does what an import still needs.
func (r *Repo) MissingBlobs(after cid.Cid, limit int) ([]MissingBlob, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	it, err := v.iterate(prefixBlobUse, after)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	x := &blobIndex{db: v.snap}
	var found []MissingBlob
	for ok := it.First(); ok && len(found) < limit; {
		d := digest(it.Key()[len(prefixBlobUse):])
		row, _, err := x.row(d)
		if err != nil {
			return nil, fmt.Errorf("list missing blobs: %w", err)
		}
		if !row.stored {
			collection, rkey := splitPath(string(it.Key()[len(prefixBlobUse)+digestSize:]))
			found = append(found, MissingBlob{d.cid(), collection, rkey})
		}
		ok = it.SeekGE(behind(prefixBlobUse, d))
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list missing blobs: %w", err)
	}
	return found, nil
}

// iterate goes over keys that a digest follows, behind that of a blob.
func (v *view) iterate(prefix string, behindBlob cid.Cid) (*pebble.Iterator, error) {
	lower := []byte(prefix)
	if d, ok := digestOfBlob(behindBlob); ok {
		lower = behind(prefix, d)
	}
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return it, nil
}

// behind is the first key after all those of a digest.
func behind(prefix string, d digest) []byte {
	key := append([]byte(prefix), d[:]...)
	for i := len(key) - 1; ; i-- {
		key[i]++
		if key[i] != 0 {
			return key // the prefix ends in a byte that can grow
		}
	}
}
