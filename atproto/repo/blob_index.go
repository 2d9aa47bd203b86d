package repo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/store"
)

// What is known of blobs, beside the files in the folder "blobs":
//
//	b/<digest>           a blob that is stored, referred to, or both
//	x/<digest><path>     a record that refers to it: the rev that wrote it
//	y/<path>             digests of the blobs that a record refers to
//	u/<micros><digest>   since when nothing refers to a stored blob
//
// A commit changes them in its own batch, so the counts are never behind the
// records.
const (
	prefixBlob     = "b/"
	prefixBlobUse  = "x/"
	prefixUses     = "y/"
	prefixIdleBlob = "u/"
)

// digest names a blob: CIDs of blobs are CIDv1, raw, sha2-256.
type digest [digestSize]byte

func digestOfBlob(c cid.Cid) (d digest, ok bool) {
	if !c.Defined() {
		return d, false
	}
	p := c.Prefix()
	if p.Version != 1 || p.Codec != cid.Raw || p.MhType != multihash.SHA2_256 || p.MhLength != digestSize {
		return d, false
	}
	copy(d[:], digestOf(c))
	return d, true
}

func (d digest) cid() cid.Cid {
	return cid.NewCidV1(cid.Raw, cidOfDigest(d[:]).Hash())
}

func blobKey(d digest) []byte { return append([]byte(prefixBlob), d[:]...) }

func blobUseKey(d digest, path string) []byte {
	return append(append([]byte(prefixBlobUse), d[:]...), path...)
}

func usesKey(path string) []byte { return []byte(prefixUses + path) }

func idleBlobKey(since uint64, d digest) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(prefixIdleBlob), since), d[:]...)
}

// blobRow is what stands under b/<digest>.
type blobRow struct {
	uses   uint32 // records that refer to it
	stored bool   // false: an imported record refers to it, nobody uploaded it
	idle   uint64 // unix microseconds since when uses is 0; 0 while it isn't
	size   int64
	mime   string
}

func (r blobRow) encode() []byte {
	out := binary.BigEndian.AppendUint32(nil, r.uses)
	out = append(out, 0)
	if r.stored {
		out[4] = 1
	}
	out = binary.BigEndian.AppendUint64(out, r.idle)
	out = binary.BigEndian.AppendUint64(out, uint64(r.size))
	return append(out, r.mime...)
}

func decodeBlobRow(val []byte) (blobRow, error) {
	if len(val) < 21 {
		return blobRow{}, errDamaged
	}
	return blobRow{
		uses:   binary.BigEndian.Uint32(val),
		stored: val[4] == 1,
		idle:   binary.BigEndian.Uint64(val[5:]),
		size:   int64(binary.BigEndian.Uint64(val[13:])),
		mime:   string(val[21:]),
	}, nil
}

// blobIndex is how the writer reads and changes those rows. Commits of one
// group share a batch, so it remembers what the earlier ones set.
type blobIndex struct {
	db      pebble.Reader
	pending map[string][]byte // nil: deleted
}

// get returns nil when there is no such key.
func (x *blobIndex) get(key []byte) ([]byte, error) {
	if val, ok := x.pending[string(key)]; ok {
		return val, nil
	}
	val, err := store.Read(x.db, key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	return val, err
}

func (x *blobIndex) row(d digest) (row blobRow, found bool, err error) {
	val, err := x.get(blobKey(d))
	if err != nil || val == nil {
		return blobRow{}, false, err
	}
	row, err = decodeBlobRow(val)
	return row, true, err
}

// check finds a write that refers to a blob which isn't stored, or is another
// than the record says. Its error is a *WriteError, or one of reading.
func (x *blobIndex) check(writes []Write) error {
	for i, w := range writes {
		blobs, err := lexicon.BlobsIn(w.Record)
		if err != nil {
			return &WriteError{i, joinPath(w.Collection, w.RKey), fmt.Errorf("%w: %w", ErrBadRecord, err)}
		}
		for _, b := range blobs {
			err := x.checkBlob(b)
			if errors.As(err, new(*BlobError)) {
				return &WriteError{i, joinPath(w.Collection, w.RKey), err}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *blobIndex) checkBlob(b atdata.Blob) error {
	c := b.Ref.CID()
	d, ok := digestOfBlob(c)
	if !ok {
		return &BlobError{CID: c, Err: ErrBlobNotFound}
	}
	row, _, err := x.row(d)
	switch {
	case err != nil:
		return fmt.Errorf("look up blob %s: %w", c, err)
	case !row.stored:
		return &BlobError{CID: c, Err: ErrBlobNotFound}
	case row.mime != b.MimeType:
		return &BlobError{CID: c, Err: ErrBlobType, Want: row.mime, Got: b.MimeType}
	case row.size != b.Size:
		return &BlobError{CID: c, Err: ErrBlobSize, Want: fmt.Sprint(row.size), Got: fmt.Sprint(b.Size)}
	}
	return nil
}

// blobEdit is what a commit does to the index. Reading comes first, so that a
// disk that fails leaves the batch as it is.
type blobEdit map[string][]byte // nil: delete

// plan works out what changes of records mean for blobs.
func (x *blobIndex) plan(changes []change, rev string, now time.Time) (blobEdit, error) {
	edit := blobEdit{}
	rows := map[digest]blobRow{}
	use := func(d digest, by int) error {
		row, ok := rows[d]
		if !ok {
			var err error
			if row, _, err = x.row(d); err != nil {
				return err
			}
			if row.idle != 0 {
				edit[string(idleBlobKey(row.idle, d))] = nil
				row.idle = 0
			}
		}
		if by < 0 && row.uses == 0 {
			return fmt.Errorf("blob %s is counted wrong: %w", d.cid(), errDamaged)
		}
		row.uses += uint32(by)
		rows[d] = row
		return nil
	}
	for _, c := range changes {
		if !c.changed() {
			continue
		}
		before, err := x.usesOf(c)
		if err != nil {
			return nil, err
		}
		if len(before) == 0 && len(c.blobs) == 0 {
			continue
		}
		for _, d := range before {
			edit[string(blobUseKey(d, c.path))] = nil
			if err := use(d, -1); err != nil {
				return nil, err
			}
		}
		for _, d := range c.blobs {
			edit[string(blobUseKey(d, c.path))] = []byte(rev)
			if err := use(d, +1); err != nil {
				return nil, err
			}
		}
		edit[string(usesKey(c.path))] = joinDigests(c.blobs)
	}
	for d, row := range rows {
		edit.put(d, row, now)
	}
	return edit, nil
}

// put sets a row as its count says.
func (e blobEdit) put(d digest, row blobRow, now time.Time) {
	key := string(blobKey(d))
	switch {
	case row.uses == 0 && !row.stored:
		e[key] = nil
		return
	case row.uses == 0:
		row.idle = uint64(now.UnixMicro())
		e[string(idleBlobKey(row.idle, d))] = []byte{}
	}
	e[key] = row.encode()
}

// usesOf lists the blobs of the record that a change replaces.
func (x *blobIndex) usesOf(c change) ([]digest, error) {
	if !c.prev.Defined() {
		return nil, nil
	}
	val, err := x.get(usesKey(c.path))
	if err != nil {
		return nil, err
	}
	return splitDigests(val)
}

// blobsOf lists the blobs of the record that a change sets, each once.
func blobsOf(c change) ([]digest, error) {
	if !c.cid.Defined() {
		return nil, nil
	}
	blobs, err := lexicon.BlobsIn(c.record)
	if err != nil {
		return nil, err
	}
	var all []digest
	seen := map[digest]bool{}
	for _, b := range blobs {
		if d, ok := digestOfBlob(b.Ref.CID()); ok && !seen[d] {
			seen[d] = true
			all = append(all, d)
		}
	}
	return all, nil
}

func joinDigests(all []digest) []byte {
	var val []byte
	for _, d := range all {
		val = append(val, d[:]...)
	}
	return val // nil, a deletion, when there are none
}

func splitDigests(val []byte) ([]digest, error) {
	if len(val)%digestSize != 0 {
		return nil, errDamaged
	}
	var all []digest
	for part := range slices.Chunk(val, digestSize) {
		all = append(all, digest(part))
	}
	return all, nil
}

// apply puts an edit into the batch.
func (x *blobIndex) apply(b *pebble.Batch, e blobEdit) {
	for key, val := range e {
		if val == nil {
			b.Delete([]byte(key), nil)
		} else {
			b.Set([]byte(key), val, nil)
		}
		x.pending[key] = bytes.Clone(val)
	}
}
