// Package archive reads a CAR file of one complete repo, as both importers
// take it, and checks everything that can be checked without the repo into
// which it is imported.
//
// Blocks come in any order and may be too many for memory, so importing takes
// two steps. Read stores each DAG-CBOR block in a Blocks of the caller, and then
// decodes the commit. Records walks the tree from the commit's root, in the order
// of the paths, and passes each record on. The caller rebuilds the tree from the
// records and compares the roots.
//
// A crash leaves only the storage of Blocks, a temporary file or a folder that is
// not yet a repo, which the caller removes at its next start.
package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

var (
	// ErrInvalid: the file is not a complete repo of the account. The error
	// has the reason.
	ErrInvalid = errors.New("invalid repo archive")

	// ErrTooLarge: a limit on the size of a file, a block or a write is exceeded.
	ErrTooLarge = errors.New("too large")
)

// Invalid returns an ErrInvalid with its reason.
func Invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// Blocks stores the blocks of an archive until they are imported.
type Blocks interface {
	// Put stores a block. data is valid until Put returns.
	Put(digest, data []byte) error

	// Get appends a block to buf. ok is false if the archive doesn't have it.
	Get(digest, buf []byte) (data []byte, ok bool, err error)
}

// Archive is an archive of the account DID.
type Archive struct {
	DID    string
	Blocks Blocks
	Limit  int64 // bytes of the file; 0: no limit

	// Blob receives each blob and compares it with its digest. nil: blobs are
	// skipped.
	Blob func(d block.Digest, body io.Reader) error
}

// Read reads the file and returns its commit, whose signature it doesn't verify.
// Errors: ErrInvalid, ErrTooLarge, and those of reading and of Blocks.
func (a *Archive) Read(ctx context.Context, in io.Reader) (*indigo.Commit, error) {
	body := &limitedReader{in: layout.Reader{Context: ctx, In: in}, left: a.Limit, limited: a.Limit > 0}
	var buf []byte
	root, err := car.Read(body, func(c cid.Cid, size int64, data io.Reader) (err error) {
		if d, ok := block.BlobDigest(c); ok && a.Blob != nil {
			return a.Blob(d, data)
		}
		if !block.IsCBOR(c) {
			return nil
		}
		if size > layout.MaxRecord {
			return fmt.Errorf("%w: block %s has %d bytes, at most %d are allowed", ErrTooLarge, c, size, layout.MaxRecord)
		}
		if buf, err = car.ReadBlock(c, size, data, buf); err != nil {
			return err
		}
		return a.Blocks.Put(block.DigestOf(c), buf)
	})
	if err != nil {
		return nil, body.explain(err)
	}
	return a.commit(root)
}

func (a *Archive) commit(root cid.Cid) (*indigo.Commit, error) {
	data, ok, err := a.get(root)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, Invalid("root %s is missing", root)
	}
	var commit indigo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(data)); err != nil {
		return nil, Invalid("root %s is not a commit", root)
	}
	if err := commit.VerifyStructure(); err != nil {
		return nil, Invalid("commit: %w", err)
	}
	if commit.DID != a.DID {
		return nil, Invalid("repo of %s, not of %s", commit.DID, a.DID)
	}
	return &commit, nil
}

// CheckRev checks that the rev of an archive is not ahead of the clock.
func CheckRev(commit *indigo.Commit, now time.Time) error {
	if (layout.Head{Rev: commit.Rev}).Ahead(now) > layout.MaxAhead {
		return Invalid("rev %s is ahead of the clock", commit.Rev)
	}
	return nil
}

// Records calls each with the path and the record of each entry of the tree, in
// order. data is nil if the archive doesn't have the record; it is valid until
// each returns.
func (a *Archive) Records(ctx context.Context, root cid.Cid, each func(path string, c cid.Cid, data []byte) error) error {
	if !block.IsCBOR(root) {
		return Invalid("root of the tree is %s", root)
	}
	var buf []byte
	w := mst.Walk{
		Strict: true,
		Load: func(digest, buf []byte) ([]byte, error) {
			data, ok, err := a.Blocks.Get(digest, buf)
			if err == nil && !ok {
				err = errMissing
			}
			return data, err
		},
		Entry: func(key, record []byte) error {
			path, c := string(key), block.CID(record)
			data, ok, err := a.Blocks.Get(record, buf[:0])
			if err != nil {
				return err
			}
			if !ok {
				return each(path, c, nil)
			}
			buf = data
			if _, err := lexicon.Unmarshal(data); err != nil {
				return Invalid("Could not parse record at '%s': %w", path, err)
			}
			return each(path, c, data)
		},
		Invalid: func(digest []byte, err error) error {
			if errors.Is(err, errMissing) || errors.Is(err, mst.ErrHash) || errors.Is(err, mst.ErrNode) {
				return Invalid("node %s: %w", block.CID(digest), err)
			}
			return err
		},
	}
	return w.Run(ctx, block.DigestOf(root))
}

var errMissing = errors.New("missing")

func (a *Archive) get(c cid.Cid) (data []byte, ok bool, err error) {
	if !block.IsCBOR(c) {
		return nil, false, nil
	}
	return a.Blocks.Get(block.DigestOf(c), nil)
}

// limitedReader ends a file that is too long, and distinguishes that, and errors
// of reading, from an invalid file.
type limitedReader struct {
	in       io.Reader
	left     int64
	limited  bool
	exceeded bool
	err      error
}

func (r *limitedReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	if r.left -= int64(n); r.limited && r.left < 0 {
		r.exceeded = true
		return 0, io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *limitedReader) explain(err error) error {
	switch {
	case r.exceeded:
		return fmt.Errorf("%w: more bytes than may be imported", ErrTooLarge)
	case r.err != nil:
		return r.err
	case errors.Is(err, car.ErrFormat), errors.Is(err, car.ErrHash):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}
