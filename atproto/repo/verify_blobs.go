package repo

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
)

// blobUses is how many keys the records that were read should have.
type blobUses struct {
	lists int64 // y/
	uses  int64 // x/
}

// recordBlobs compares the blobs that a record refers to with what is known of
// it.
func (v *verifier) recordBlobs(path string, record []byte) {
	want, err := blobsOf(change{cid: CIDOf(record), record: record})
	if err != nil {
		v.wrong(PartRecord, path, "its data is not canonical: %v", err)
		return
	}
	val, err := store.Read(v.db, usesKey(path))
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		v.wrong(PartBlob, path, "which ones the record refers to can't be read: %v", err)
		return
	}
	got, err := splitDigests(val)
	if err != nil || !sameDigests(got, want) {
		v.wrong(PartBlob, path, "the record refers to %d, and the list of them is another", len(want))
		return
	}
	if len(want) > 0 {
		v.refs.lists++
	}
	for _, d := range want {
		v.refs.uses++
		if _, err := store.Read(v.db, blobUseKey(d, path)); err != nil {
			v.wrong(PartBlob, d.cid().String(), "that %s refers to it is not known: %v", path, err)
		}
		if _, known, err := (&blobIndex{db: v.db}).row(d); err == nil && !known {
			v.wrong(PartBlob, d.cid().String(), "its row is missing, and %s refers to it", path)
		}
	}
}

// sameDigests compares two lists without repetitions.
func sameDigests(a, b []digest) bool {
	in := make(map[digest]bool, len(a))
	for _, d := range a {
		in[d] = true
	}
	for _, d := range b {
		if !in[d] {
			return false
		}
	}
	return len(a) == len(b)
}

// blobs looks at each blob's row, its file, and at lists that no record has.
func (v *verifier) blobs(ctx context.Context) error {
	files := newBlobFiles(v.cfg)
	err := v.scan(ctx, prefixBlob, PartBlob, func(rest []byte, it *pebble.Iterator) error {
		if len(rest) != digestSize {
			v.wrong(PartBlob, fmt.Sprintf("%x", rest), "a row under what is no digest")
			return nil
		}
		d := digest(rest)
		val, err := it.ValueAndErr()
		if err != nil {
			v.wrong(PartBlob, d.cid().String(), "it can't be read: %v", err)
			return nil
		}
		row, err := decodeBlobRow(val)
		if err != nil {
			v.wrong(PartBlob, d.cid().String(), "its row is cut short")
			return nil
		}
		return v.blob(ctx, files, d, row)
	})
	if err != nil || v.lost > 0 || !v.root().Defined() {
		return err // then records are missing, and their lists say nothing
	}
	lists, err := v.count(ctx, prefixUses, PartBlob)
	if err != nil {
		return err
	}
	uses, err := v.count(ctx, prefixBlobUse, PartBlob)
	if err != nil {
		return err
	}
	if lists > v.refs.lists {
		v.wrong(PartBlob, "", "%d lists are of no record", lists-v.refs.lists)
	}
	if uses > v.refs.uses {
		v.wrong(PartBlob, "", "%d uses are by no record", uses-v.refs.uses)
	}
	return nil
}

func (v *verifier) blob(ctx context.Context, files blobFiles, d digest, row blobRow) error {
	name := d.cid().String()
	uses := int64(0)
	prefix := string(blobUseKey(d, ""))
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: behind(prefixBlobUse, d)})
	if err != nil {
		return fmt.Errorf("read blobs: %w", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		uses++
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		v.wrong(PartBlob, name, "its uses can't be read: %v", err)
		return nil
	}
	if uses != int64(row.uses) {
		v.wrong(PartBlob, name, "%d uses of it are known, and %d are counted", uses, row.uses)
	}
	if idle := row.uses == 0 && row.stored; idle != (row.idle != 0) {
		v.wrong(PartBlob, name, "since when nobody refers to it is wrong")
	} else if idle {
		if _, err := store.Read(v.db, idleBlobKey(row.idle, d)); err != nil {
			v.wrong(PartBlob, name, "it waits for a record and would never go: %v", err)
		}
	}
	if !row.stored {
		v.report.Missing++
		return nil
	}
	v.report.Blobs++
	if err := checkBlobFile(ctx, files, d, row.size); err != nil {
		v.wrong(PartBlob, name, "%v", err)
	}
	return nil
}

// checkBlobFile reads all of a blob.
func checkBlobFile(ctx context.Context, files blobFiles, d digest, size int64) error {
	file, err := files.fs.Open(files.path(d), vfs.SequentialReadsOption)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("its file is missing")
	}
	if err != nil {
		return fmt.Errorf("its file can't be read: %w", err)
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, untilDone{ctx, file})
	switch {
	case err != nil:
		return fmt.Errorf("its file can't be read: %w", err)
	case n != size:
		return fmt.Errorf("its file has %d bytes, and its row says %d", n, size)
	case digest(sum.Sum(nil)) != d:
		return errors.New("its bytes are others than its CID says")
	}
	return nil
}

// untilDone is a reader that ends with a context.
type untilDone struct {
	ctx context.Context
	in  io.Reader
}

func (r untilDone) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.in.Read(p)
}

// idle finds entries of blobs that nobody waits for.
func (v *verifier) idle(ctx context.Context) error {
	return v.scan(ctx, prefixIdleBlob, PartBlob, func(rest []byte, _ *pebble.Iterator) error {
		if len(rest) != 8+digestSize {
			v.wrong(PartBlob, fmt.Sprintf("%x", rest), "an entry of an idle one is cut short")
			return nil
		}
		d, since := digest(rest[8:]), binary.BigEndian.Uint64(rest)
		row, _, err := (&blobIndex{db: v.db}).row(d)
		if err == nil && row.idle != since {
			v.wrong(PartBlob, d.cid().String(), "it is said to be idle, and is not")
		}
		return nil
	})
}
