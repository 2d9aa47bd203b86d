package repo

import (
	"encoding/binary"
	"io"

	"github.com/ipfs/go-cid"
)

// CAR v1, by https://ipld.io/specs/transport/car/carv1/: a header, then
// sections, each with its length as a varint before it. The header is
// {"roots": [CID], "version": 1} in DAG-CBOR. cid.Undef is no root.
func writeCARHeader(w io.Writer, root cid.Cid) error {
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

// carHead is about what a section has around its block, in bytes.
const carHead = 42

func writeCARBlock(w io.Writer, c cid.Cid, data []byte) error {
	head := binary.AppendUvarint(make([]byte, 0, carHead), uint64(c.ByteLen()+len(data)))
	head = append(head, c.KeyString()...)
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// buffered is a *bufio.Writer or a *bytes.Buffer.
type buffered interface {
	io.Writer
	AvailableBuffer() []byte
}

// writeCARSection is writeCARBlock for a digest.
func writeCARSection(w buffered, digest, data []byte) error {
	head := binary.AppendUvarint(w.AvailableBuffer(), uint64(len(cidPrefix)+len(digest)+len(data)))
	if _, err := w.Write(append(append(head, cidPrefix...), digest...)); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}
