package car

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car"

	"github.com/tidings-dev/tidings/atproto/block"
)

var (
	// ErrFormat: bytes that are not a complete CAR file of version 1.
	ErrFormat = errors.New("not a complete CAR file")

	// ErrHash: the bytes of a block don't match its CID.
	ErrHash = errors.New("bytes don't match the CID")
)

// maxSection is the greatest length of a section in bytes.
const maxSection = 1 << 40

// Read reads a CAR file and calls each with every section: the CID, the size of
// the block, and its bytes, of which each may leave some unread. The bytes are not
// compared with the CID. The root is cid.Undef if the file has none. Errors of the
// format are ErrFormat.
func Read(r io.Reader, each func(c cid.Cid, size int64, body io.Reader) error) (root cid.Cid, err error) {
	size := 64 << 10
	if inMemory, ok := r.(*bytes.Reader); ok {
		size = min(size, inMemory.Len())
	}
	in := bufio.NewReaderSize(r, size)
	header, err := car.ReadHeader(in)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if header.Version != 1 || len(header.Roots) > 1 {
		return cid.Undef, fmt.Errorf("%w: version %d with %d roots, want version 1 with at most one root", ErrFormat, header.Version, len(header.Roots))
	}
	if len(header.Roots) == 1 {
		root = header.Roots[0]
	}
	for {
		if _, err := in.Peek(1); err == io.EOF {
			return root, nil
		}
		size, err := binary.ReadUvarint(in)
		if err != nil {
			return cid.Undef, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if size > maxSection {
			return cid.Undef, fmt.Errorf("%w: a block of %d bytes", ErrFormat, size)
		}
		section := &io.LimitedReader{R: in, N: int64(size)}
		_, c, err := cid.CidFromReader(section)
		if err != nil {
			return cid.Undef, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if err := each(c, section.N, section); err != nil {
			return cid.Undef, err
		}
		if left := section.N; left > 0 {
			if n, err := io.Copy(io.Discard, section); n < left || err != nil {
				return cid.Undef, errors.Join(truncated(c), err)
			}
		}
	}
}

func truncated(c cid.Cid) error { return fmt.Errorf("%w: block %s is truncated", ErrFormat, c) }

// ReadBlock reads the bytes of a DAG-CBOR block, as Read passes them, into buf
// if that is large enough, and compares them with the CID.
func ReadBlock(c cid.Cid, size int64, body io.Reader, buf []byte) ([]byte, error) {
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(body, buf); err != nil {
		return nil, fmt.Errorf("%w: %w", truncated(c), err)
	}
	if block.CIDOf(buf) != c {
		return nil, fmt.Errorf("block %s: %w", c, ErrHash)
	}
	return buf, nil
}

// ReadBlocks reads a CAR file of DAG-CBOR blocks of at most limit bytes each and
// compares them with their CIDs. The bytes are valid until each returns.
func ReadBlocks(r io.Reader, limit int64, each func(cid.Cid, []byte) error) (root cid.Cid, err error) {
	var buf []byte
	return Read(r, func(c cid.Cid, size int64, body io.Reader) (err error) {
		if size > limit {
			return fmt.Errorf("block %s has %d bytes, at most %d are allowed", c, size, limit)
		}
		if !block.IsCBOR(c) {
			return fmt.Errorf("block %s is not DAG-CBOR with SHA-256", c)
		}
		if buf, err = ReadBlock(c, size, body, buf); err != nil {
			return err
		}
		return each(c, buf)
	})
}
