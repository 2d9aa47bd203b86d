package repo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Export writes the repo as a CAR file: the signed commit, which is the
// root, then nodes and records in the order of a walk of the tree. It reads one
// durable commit, independent of later writes, and keeps only the path to
// the current node in memory.
func (r *Repo) Export(ctx context.Context, w io.Writer) error {
	v, err := r.acquire()
	if err != nil {
		return err
	}
	defer r.release(v)
	records, err := layout.Iterate(v.snap, layout.PrefixRecord)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer records.Close()
	records.First()
	nodes, err := layout.Iterate(v.snap, layout.PrefixNode)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer nodes.Close()
	e := export{view: v, records: records, nodes: nodes, out: bufio.NewWriterSize(w, 64<<10), closing: r.closing}
	if err := e.run(ctx); err != nil {
		return fmt.Errorf("export: %w", damaged(err))
	}
	if err := e.out.Flush(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// export walks the tree together with an iterator over the records, which are in
// the same order.
type export struct {
	*view
	records store.Iterator
	nodes   store.Iterator // reused, since a Get repeats its lookups
	key     []byte         // of a node; reused
	out     *bufio.Writer
	closing <-chan struct{}
}

func (e *export) run(ctx context.Context) error {
	if err := car.WriteHeader(e.out, e.Commit); err != nil {
		return err
	}
	if err := car.WriteBlock(e.out, e.Commit, e.Block); err != nil {
		return err
	}
	w := mst.Walk{Load: e.load, Node: e.node, Entry: e.record}
	if err := w.Run(ctx, block.DigestOf(e.Data)); err != nil {
		return err
	}
	if e.records.Valid() {
		return fmt.Errorf("record %s is not in the tree: %w", e.records.Key(), layout.ErrDamaged)
	}
	return e.records.Error()
}

func (e *export) load(digest, buf []byte) ([]byte, error) {
	e.key = append(append(e.key[:0], layout.PrefixNode...), digest...)
	if !e.nodes.SeekGE(e.key) || !bytes.Equal(e.nodes.Key(), e.key) {
		if err := e.nodes.Error(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("missing: %w", layout.ErrDamaged)
	}
	val, err := e.nodes.ValueAndErr()
	return append(buf, val...), err
}

func (e *export) node(digest, data []byte) error {
	select {
	case <-e.closing:
		return ErrClosed
	default:
		return car.WriteDigest(e.out, digest, data)
	}
}

func (e *export) record(path, digest []byte) error {
	if !e.records.Valid() || !bytes.Equal(e.records.Key()[len(layout.PrefixRecord):], path) {
		if err := e.records.Error(); err != nil {
			return err
		}
		return fmt.Errorf("record %s is missing: %w", path, layout.ErrDamaged)
	}
	val, err := e.records.ValueAndErr()
	if err != nil {
		return err
	}
	if len(val) < block.DigestSize || !bytes.Equal(val[:block.DigestSize], digest) {
		return fmt.Errorf("record %s is not the one in the tree: %w", path, layout.ErrDamaged)
	}
	if sum := sha256.Sum256(val[block.DigestSize:]); !bytes.Equal(sum[:], digest) {
		return fmt.Errorf("record %s: %w", path, layout.ErrDamaged)
	}
	if err := car.WriteDigest(e.out, digest, val[block.DigestSize:]); err != nil {
		return err
	}
	e.records.Next()
	return nil
}

// blobPage is how many blobs ExportBlobs looks up at once.
const blobPage = 500

// ExportBlobs appends the stored blobs that records refer to, as further blocks
// of the CAR file that Export wrote, and returns their number.
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
				continue // it was not uploaded
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
	if err := car.WriteSectionHead(out, b.CID, b.Size); err != nil {
		return err
	}
	_, err = io.Copy(out, layout.Reader{Context: ctx, In: body})
	return err
}
