package repo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// blobRefs is how the writer reads and changes the rows of blobs and of the
// references to them. The commits of one group share a batch that can't be read,
// so the rows that earlier ones set are kept in pending.
type blobRefs struct {
	db      store.Reader
	pending map[string][]byte // nil: deleted
}

// get returns nil if there is no such key.
func (x *blobRefs) get(key []byte) ([]byte, error) {
	if val, ok := x.pending[string(key)]; ok {
		return val, nil
	}
	val, err := store.Read(x.db, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return val, err
}

func (x *blobRefs) row(d block.Digest) (layout.BlobRow, error) {
	val, err := x.get(layout.BlobKey(d))
	if err != nil || val == nil {
		return layout.BlobRow{}, err
	}
	return layout.DecodeBlobRow(val)
}

// check checks that the blobs to which writes refer are stored, with the size and
// the type that the records give. Its error is a *WriteError, or one of reading.
func (x *blobRefs) check(writes []Write) error {
	for i, w := range writes {
		blobs, err := lexicon.BlobsIn(w.Record)
		if err != nil {
			return &WriteError{i, mst.JoinPath(w.Collection, w.RKey), fmt.Errorf("%w: %w", ErrInvalidRecord, err)}
		}
		for _, b := range blobs {
			err := x.checkBlob(b)
			if errors.As(err, new(*BlobError)) {
				return &WriteError{i, mst.JoinPath(w.Collection, w.RKey), err}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *blobRefs) checkBlob(b atdata.Blob) error {
	c := b.Ref.CID()
	d, ok := block.BlobDigest(c)
	if !ok {
		return &BlobError{CID: c, Err: ErrBlobNotFound}
	}
	row, err := x.row(d)
	switch {
	case err != nil:
		return fmt.Errorf("look up blob %s: %w", c, err)
	case !row.Stored:
		return &BlobError{CID: c, Err: ErrBlobNotFound}
	case row.MIME != b.MimeType:
		return &BlobError{CID: c, Err: ErrBlobType, Want: row.MIME, Got: b.MimeType}
	case row.Size != b.Size:
		return &BlobError{CID: c, Err: ErrBlobSize, Want: fmt.Sprint(row.Size), Got: fmt.Sprint(b.Size)}
	}
	return nil
}

// blobEdit has the changes of rows by a commit. All reads are done before it is
// applied, so a disk failure leaves the batch unchanged.
type blobEdit map[string][]byte // nil: delete

// plan derives the changes of blob rows from changes of records.
func (x *blobRefs) plan(changes []change, rev string, now time.Time) (blobEdit, error) {
	p := blobPlan{blobRefs: x, edit: blobEdit{}, rows: map[block.Digest]layout.BlobRow{}}
	for _, c := range changes {
		if !c.changed() {
			continue
		}
		if err := p.change(c, rev); err != nil {
			return nil, err
		}
	}
	for d, row := range p.rows {
		p.edit.put(d, row, now)
	}
	return p.edit, nil
}

type blobPlan struct {
	*blobRefs
	edit blobEdit
	rows map[block.Digest]layout.BlobRow // with their new uses
}

// change moves the uses of a record's old blobs to its new ones.
func (p *blobPlan) change(c change, rev string) error {
	before, err := p.refsOf(c)
	if err != nil {
		return err
	}
	if len(before) == 0 && len(c.blobs) == 0 {
		return nil
	}
	for _, d := range before {
		p.edit[string(layout.BlobUseKey(d, c.path))] = nil
		if err := p.addUses(d, -1); err != nil {
			return err
		}
	}
	for _, d := range c.blobs {
		p.edit[string(layout.BlobUseKey(d, c.path))] = []byte(rev)
		if err := p.addUses(d, +1); err != nil {
			return err
		}
	}
	p.edit[string(layout.BlobRefsKey(c.path))] = layout.JoinDigests(c.blobs)
	return nil
}

// refsOf lists the blobs of the record that a change replaces.
func (x *blobRefs) refsOf(c change) ([]block.Digest, error) {
	if !c.prev.Defined() {
		return nil, nil
	}
	val, err := x.get(layout.BlobRefsKey(c.path))
	if err != nil {
		return nil, err
	}
	return layout.SplitDigests(val)
}

func (p *blobPlan) addUses(d block.Digest, n int) error {
	row, ok := p.rows[d]
	if !ok {
		var err error
		if row, err = p.row(d); err != nil {
			return err
		}
		p.edit.clearIdle(d, &row)
	}
	if n < 0 && row.Uses == 0 {
		return fmt.Errorf("blob %s has fewer uses than records: %w", d.BlobCID(), layout.ErrDamaged)
	}
	row.Uses += uint32(n)
	p.rows[d] = row
	return nil
}

func (e blobEdit) clearIdle(d block.Digest, row *layout.BlobRow) {
	if row.Idle != 0 {
		e[string(layout.IdleBlobKey(row.Idle, d))] = nil
		row.Idle = 0
	}
}

// put sets a row, deletes one that is neither stored nor used, and marks one that
// is not used as idle.
func (e blobEdit) put(d block.Digest, row layout.BlobRow, now time.Time) {
	key := string(layout.BlobKey(d))
	switch {
	case row.Uses == 0 && !row.Stored:
		e[key] = nil
		return
	case row.Uses == 0:
		row.Idle = uint64(now.UnixMicro())
		e[string(layout.IdleBlobKey(row.Idle, d))] = []byte{}
	}
	e[key] = row.Encode()
}

// apply adds an edit to the batch.
func (x *blobRefs) apply(b store.Batch, e blobEdit) {
	for key, val := range e {
		if val == nil {
			b.Delete([]byte(key))
		} else {
			b.Set([]byte(key), val)
		}
		x.pending[key] = bytes.Clone(val)
	}
}

const (
	blobGrace    = time.Hour // how long an upload stays without a record that refers to it
	collectLimit = 10_000    // blobs that one round deletes at most
)

// collect adds the deletion of blobs that have been idle for an hour to the
// batch. Their files are removed once it is durable.
func (w *writer) collect(b store.Batch) (deleted []block.Digest, err error) {
	before := max(0, w.cfg.Now().Add(-blobGrace).UnixMicro())
	it, err := w.store.NewIter(store.Range{
		Start: []byte(layout.PrefixIdleBlob),
		End:   binary.BigEndian.AppendUint64([]byte(layout.PrefixIdleBlob), uint64(before)),
	})
	if err != nil {
		return nil, fmt.Errorf("read idle blobs: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok && len(deleted) < collectLimit; ok = it.Next() {
		rest := it.Key()[len(layout.PrefixIdleBlob):]
		if len(rest) != 8+block.DigestSize {
			return nil, fmt.Errorf("read idle blobs: %w", layout.ErrDamaged)
		}
		d := block.Digest(rest[8:])
		b.Delete(it.Key())
		b.Delete(layout.BlobKey(d))
		deleted = append(deleted, d)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("read idle blobs: %w", err)
	}
	return deleted, nil
}
