package repair

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// refCounts are the expected numbers of keys for the references of the records.
type refCounts struct {
	lists int64 // layout.PrefixBlobRefs
	uses  int64 // layout.PrefixBlobUse
}

// recordBlobs compares the blobs that a record refers to with the rows.
func (v *verifier) recordBlobs(path string, record []byte) {
	want, err := layout.BlobsOf(record)
	if err != nil {
		v.report(PartRecord, path, "not canonical: %v", err)
		return
	}
	val, err := store.Read(v.db, layout.BlobRefsKey(path))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		v.report(PartBlob, path, "the list of the record's blobs can't be read: %v", err)
		return
	}
	got, err := layout.SplitDigests(val)
	if err != nil || !sameDigests(got, want) {
		v.report(PartBlob, path, "the record refers to %d blobs, its list has others", len(want))
		return
	}
	if len(want) > 0 {
		v.refs.lists++
	}
	for _, d := range want {
		v.refs.uses++
		if _, err := store.Read(v.db, layout.BlobUseKey(d, path)); err != nil {
			v.report(PartBlob, d.BlobCID().String(), "its use by %s is missing: %v", path, err)
		}
		if _, found, err := layout.ReadBlob(v.db, d); err == nil && !found {
			v.report(PartBlob, d.BlobCID().String(), "its row is missing, %s refers to it", path)
		}
	}
}

// sameDigests compares two lists without repetitions.
func sameDigests(a, b []block.Digest) bool {
	in := make(map[block.Digest]bool, len(a))
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

// blobs checks each blob's row and file, and finds references without a record.
func (v *verifier) blobs(ctx context.Context) error {
	files := layout.NewBlobFiles(v.cfg.FS, v.cfg.Dir)
	err := v.scan(ctx, layout.PrefixBlob, PartBlob, func(key []byte, it store.Iterator) error {
		if len(key) != block.DigestSize {
			v.report(PartBlob, fmt.Sprintf("%x", key), "a row with an invalid key")
			return nil
		}
		d := block.Digest(key)
		val, err := it.ValueAndErr()
		if err != nil {
			v.report(PartBlob, d.BlobCID().String(), "can't be read: %v", err)
			return nil
		}
		row, err := layout.DecodeBlobRow(val)
		if err != nil {
			v.report(PartBlob, d.BlobCID().String(), "its row is truncated")
			return nil
		}
		return v.blob(ctx, files, d, row)
	})
	if err != nil || v.invalid > 0 || !v.root().Defined() {
		return err // records are missing, and so the counts of references mean nothing
	}
	lists, err := v.count(ctx, layout.PrefixBlobRefs, PartBlob)
	if err != nil {
		return err
	}
	uses, err := v.count(ctx, layout.PrefixBlobUse, PartBlob)
	if err != nil {
		return err
	}
	if lists > v.refs.lists {
		v.report(PartBlob, "", "%d lists without a record", lists-v.refs.lists)
	}
	if uses > v.refs.uses {
		v.report(PartBlob, "", "%d uses without a record", uses-v.refs.uses)
	}
	return nil
}

func (v *verifier) blob(ctx context.Context, files layout.BlobFiles, d block.Digest, row layout.BlobRow) error {
	name := d.BlobCID().String()
	uses, err := layout.Count(v.db, string(layout.BlobUseKey(d, "")))
	if err != nil {
		v.report(PartBlob, name, "its uses can't be read: %v", err)
		return nil
	}
	if uses != int64(row.Uses) {
		v.report(PartBlob, name, "%d uses are stored, its row counts %d", uses, row.Uses)
	}
	if idle := row.Uses == 0 && row.Stored; idle != (row.Idle != 0) {
		v.report(PartBlob, name, "its row has a wrong idle time")
	} else if idle {
		if _, err := store.Read(v.db, layout.IdleBlobKey(row.Idle, d)); err != nil {
			v.report(PartBlob, name, "idle, but would never be deleted: %v", err)
		}
	}
	if !row.Stored {
		v.counts.Missing++
		return nil
	}
	v.counts.Blobs++
	v.read("blobs", v.counts.Blobs)
	if err := files.Verify(ctx, d, row.Size); err != nil {
		v.report(PartBlob, name, "%v", err)
	}
	return nil
}

// idleBlobs finds entries of idle blobs that are not idle.
func (v *verifier) idleBlobs(ctx context.Context) error {
	return v.scan(ctx, layout.PrefixIdleBlob, PartBlob, func(key []byte, _ store.Iterator) error {
		if len(key) != 8+block.DigestSize {
			v.report(PartBlob, fmt.Sprintf("%x", key), "an idle entry is truncated")
			return nil
		}
		d, since := block.Digest(key[8:]), binary.BigEndian.Uint64(key)
		row, _, err := layout.ReadBlob(v.db, d)
		if err == nil && row.Idle != since {
			v.report(PartBlob, d.BlobCID().String(), "has an idle entry, but is not idle since then")
		}
		return nil
	})
}
