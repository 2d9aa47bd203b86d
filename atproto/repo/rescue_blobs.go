package repo

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/store"
)

// idleBlobs keeps what was uploaded and waits for its record.
func (r *rescue) idleBlobs(ctx context.Context) error {
	return eachRow(ctx, r.from, func(d digest, row blobRow) error {
		if row.uses > 0 || !row.stored || checkBlobFile(ctx, newBlobFiles(r.cfg.Config), d, row.size) != nil {
			return ctx.Err()
		}
		if row.idle == 0 {
			row.idle = uint64(r.cfg.Now().UnixMicro())
		}
		return errors.Join(
			r.to.linkBlob(d),
			r.to.set(blobKey(d), row.encode()),
			r.to.set(idleBlobKey(row.idle, d), []byte{}),
		)
	})
}

// eachRow reads the rows of blobs, as far as they can be read.
func eachRow(ctx context.Context, db pebble.Reader, each func(digest, blobRow) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixBlob), UpperBound: after(prefixBlob)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil || len(it.Key()) != len(prefixBlob)+digestSize {
			continue
		}
		row, err := decodeBlobRow(val)
		if err != nil {
			continue
		}
		if err := each(digest(it.Key()[len(prefixBlob):]), row); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// usedSince is the rev at which a record began to refer to a blob, the head's
// if that is not known any more.
func (r *rescue) usedSince(d digest, path string) string {
	rev, err := store.Read(r.from, blobUseKey(d, path))
	if err != nil || len(rev) == 0 {
		return r.verifier.head.Rev
	}
	return string(rev)
}

// oldBlob is the row of a blob that a record refers to, without its uses, and
// brings its file along. Without a row the record says what it is.
func (r *rescue) oldBlob(ctx context.Context, d digest, record []byte) (blobRow, error) {
	row, known, err := (&blobIndex{db: r.from}).row(d)
	if err != nil || !known {
		row = described(record, d)
	}
	if row.stored {
		if err := checkBlobFile(ctx, newBlobFiles(r.cfg.Config), d, row.size); err != nil {
			if ctx.Err() != nil {
				return row, ctx.Err()
			}
			r.say("blob %s is lost (%v); it can be uploaded again", d.cid(), err)
			row = blobRow{}
		}
	}
	row.uses, row.idle = 0, 0
	if !row.stored {
		return row, nil
	}
	return row, r.to.linkBlob(d)
}

// described is the row of a blob as a record has it.
func described(record []byte, d digest) blobRow {
	blobs, err := lexicon.BlobsIn(record)
	if err != nil {
		return blobRow{}
	}
	for _, b := range blobs {
		if b.Ref.CID() == d.cid() {
			return blobRow{stored: true, size: b.Size, mime: b.MimeType}
		}
	}
	return blobRow{}
}
