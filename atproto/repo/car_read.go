package repo

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car"
)

// errCAR: bytes that are no CAR, or one that was cut short.
var errCAR = errors.New("it is not a whole CAR file")

// readCARSections reads a CAR v1 with one root and gives each block's body to
// each, which need not read all of it. Nothing is checked but the form.
func readCARSections(r io.Reader, each func(c cid.Cid, size int64, body io.Reader) error) (root cid.Cid, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	header, err := car.ReadHeader(in)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", errCAR, err)
	}
	if header.Version != 1 || len(header.Roots) != 1 {
		return cid.Undef, fmt.Errorf("%w of a repository: it has version %d and %d roots, not version 1 and one root", errCAR, header.Version, len(header.Roots))
	}
	for {
		if _, err := in.Peek(1); err == io.EOF {
			return header.Roots[0], nil
		}
		size, err := binary.ReadUvarint(in)
		if err != nil {
			return cid.Undef, fmt.Errorf("%w: %w", errCAR, err)
		}
		if size > 1<<40 {
			return cid.Undef, fmt.Errorf("%w: a block of %d bytes", errCAR, size)
		}
		section := &io.LimitedReader{R: in, N: int64(size)}
		_, c, err := cid.CidFromReader(section)
		if err != nil {
			return cid.Undef, fmt.Errorf("%w: %w", errCAR, err)
		}
		if err := each(c, section.N, section); err != nil {
			return cid.Undef, err
		}
		if left := section.N; left > 0 {
			if n, err := io.Copy(io.Discard, section); n < left || err != nil {
				return cid.Undef, fmt.Errorf("%w: block %s is cut short", errCAR, c)
			}
		}
	}
}

// readCAR reads a CAR of small blocks, up to limit bytes each, and checks that
// they are what their CIDs say. The bytes are good until each returns.
func readCAR(r io.Reader, limit int64, each func(cid.Cid, []byte) error) (root cid.Cid, err error) {
	var buf []byte
	return readCARSections(r, func(c cid.Cid, size int64, body io.Reader) error {
		if size > limit {
			return fmt.Errorf("block %s has %d bytes, at most %d are read", c, size, limit)
		}
		if !ours(c) {
			return fmt.Errorf("block %s is not CBOR under SHA-256", c)
		}
		if int64(cap(buf)) < size {
			buf = make([]byte, size)
		}
		buf = buf[:size]
		if _, err := io.ReadFull(body, buf); err != nil {
			return fmt.Errorf("%w: block %s is cut short", errCAR, c)
		}
		if CIDOf(buf) != c {
			return fmt.Errorf("block %s has other bytes than its CID says", c)
		}
		return each(c, buf)
	})
}
