package layout

import (
	"encoding/binary"
	"slices"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/store"
)

// BlobRow is the row of a blob.
type BlobRow struct {
	Uses   uint32 // records that refer to it
	Stored bool   // false: an imported record refers to it, but it was not uploaded
	Idle   uint64 // unix microseconds since when a stored blob has no uses; else 0
	Size   int64
	MIME   string
}

// Encode returns the row: Uses, Stored, Idle, Size, MIME.
func (r BlobRow) Encode() []byte {
	out := binary.BigEndian.AppendUint32(nil, r.Uses)
	out = append(out, 0)
	if r.Stored {
		out[4] = 1
	}
	out = binary.BigEndian.AppendUint64(out, r.Idle)
	out = binary.BigEndian.AppendUint64(out, uint64(r.Size))
	return append(out, r.MIME...)
}

// DecodeBlobRow is the inverse of Encode.
func DecodeBlobRow(val []byte) (BlobRow, error) {
	if len(val) < 21 {
		return BlobRow{}, ErrDamaged
	}
	return BlobRow{
		Uses:   binary.BigEndian.Uint32(val),
		Stored: val[4] == 1,
		Idle:   binary.BigEndian.Uint64(val[5:]),
		Size:   int64(binary.BigEndian.Uint64(val[13:])),
		MIME:   string(val[21:]),
	}, nil
}

// ReadBlob reads the row of a blob. found is false if there is none.
func ReadBlob(db store.Reader, d block.Digest) (row BlobRow, found bool, err error) {
	val, err := read(db, BlobKey(d))
	if err != nil || val == nil {
		return BlobRow{}, false, err
	}
	row, err = DecodeBlobRow(val)
	return row, true, err
}

// BlobsOf lists the blobs that a record refers to, each once.
func BlobsOf(record []byte) ([]block.Digest, error) {
	blobs, err := lexicon.BlobsIn(record)
	if err != nil {
		return nil, err
	}
	var all []block.Digest
	seen := map[block.Digest]bool{}
	for _, b := range blobs {
		if d, ok := block.BlobDigest(b.Ref.CID()); ok && !seen[d] {
			seen[d] = true
			all = append(all, d)
		}
	}
	return all, nil
}

// JoinDigests returns the value of a BlobRefsKey, nil for no digests.
func JoinDigests(all []block.Digest) []byte {
	var val []byte
	for _, d := range all {
		val = append(val, d[:]...)
	}
	return val
}

// SplitDigests is the inverse of JoinDigests.
func SplitDigests(val []byte) ([]block.Digest, error) {
	if len(val)%block.DigestSize != 0 {
		return nil, ErrDamaged
	}
	var all []block.Digest
	for part := range slices.Chunk(val, block.DigestSize) {
		all = append(all, block.Digest(part))
	}
	return all, nil
}
