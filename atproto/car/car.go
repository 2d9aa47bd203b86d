// Package car reads and writes CAR files of version 1, by
// https://ipld.io/specs/transport/car/carv1/: a header, then sections of a CID
// and its bytes, each preceded by its length as a varint.
package car

import (
	"encoding/binary"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
)

// SectionOverhead is about how many bytes a section has in addition to its block.
const SectionOverhead = 42

// WriteHeader writes {"roots": [root], "version": 1} in DAG-CBOR, without a root
// if it is cid.Undef.
func WriteHeader(w io.Writer, root cid.Cid) error {
	head := []byte{0xa2, 0x65, 'r', 'o', 'o', 't', 's', 0x80}
	if root.Defined() {
		id := root.Bytes()
		head = append(head[:7], 0x81, 0xd8, 0x2a, 0x58, byte(len(id)+1), 0)
		head = append(head, id...)
	}
	head = append(head, 0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 1)
	_, err := w.Write(append(binary.AppendUvarint(nil, uint64(len(head))), head...))
	return err
}

// WriteBlock writes the section of a block.
func WriteBlock(w io.Writer, c cid.Cid, data []byte) error {
	if err := WriteSectionHead(w, c, int64(len(data))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// WriteSectionHead writes what precedes the bytes of a block; the caller writes
// the bytes.
func WriteSectionHead(w io.Writer, c cid.Cid, size int64) error {
	head := binary.AppendUvarint(make([]byte, 0, SectionOverhead), uint64(c.ByteLen())+uint64(size))
	_, err := w.Write(append(head, c.KeyString()...))
	return err
}

// Buffered is a *bufio.Writer or a *bytes.Buffer.
type Buffered interface {
	io.Writer
	AvailableBuffer() []byte
}

// WriteDigest is WriteBlock for the digest of a DAG-CBOR block. It doesn't
// allocate.
func WriteDigest(w Buffered, digest, data []byte) error {
	head := binary.AppendUvarint(w.AvailableBuffer(), uint64(len(block.Prefix)+len(digest)+len(data)))
	if _, err := w.Write(append(append(head, block.Prefix...), digest...)); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}
