package mst

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

var (
	// ErrHash: the bytes of a node don't match its CID.
	ErrHash = errors.New("bytes don't match the CID")

	// ErrNode: bytes that are not the canonical encoding of a tree node, or a node at
	// an invalid position in the tree.
	ErrNode = errors.New("invalid tree node")
)

// Node is a parsed node whose slices point into the encoded bytes. Exports and proofs
// read very many nodes, and indigo's decoder allocates a dozen objects for each. Parse
// may be called again, and reuses the entries.
type Node struct {
	Left    []byte // digest of the child before the first entry; nil: none
	Entries []Entry
}

// Entry is a path with its record and the child after it.
type Entry struct {
	Shared int    // bytes of the path that are the same as in the previous entry
	Suffix []byte // the rest of the path
	Value  []byte // digest of the record
	Right  []byte // digest of the child after the entry; nil: none
}

// Parse reads a node with this digest: {"e": [{"k": suffix, "p": shared, "t":
// right, "v": value}], "l": left} in canonical DAG-CBOR, in which every link is
// the CID of a DAG-CBOR block. The error is ErrHash or ErrNode.
func (n *Node) Parse(digest, data []byte) error {
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], digest) {
		return ErrHash
	}
	return n.ParseTrusted(data)
}

// ParseTrusted is Parse for bytes that are known to match their digest.
func (n *Node) ParseTrusted(data []byte) error {
	p := parser{rest: data}
	p.literal("\xa2\x61e")
	count := p.head(4 << 5)
	n.Entries = n.Entries[:0]
	length := 0 // of the previous path
	for range count {
		var e Entry
		p.literal("\xa4\x61k")
		e.Suffix = p.take(p.head(2 << 5))
		p.literal("\x61p")
		e.Shared = p.head(0)
		p.literal("\x61t")
		e.Right = p.linkOrNull()
		p.literal("\x61v")
		e.Value = p.link()
		if p.failed || e.Shared > length {
			return ErrNode
		}
		length = e.Shared + len(e.Suffix)
		n.Entries = append(n.Entries, e)
	}
	p.literal("\x61l")
	n.Left = p.linkOrNull()
	if p.failed || len(p.rest) > 0 {
		return ErrNode
	}
	return nil
}

// Find searches for a path. It returns the digest of its record, or of the child under
// which the path would be, or neither.
func (n *Node) Find(path string) (record, child []byte) {
	child = n.Left
	var room [256]byte
	key := room[:0]
	for _, e := range n.Entries {
		key = append(key[:e.Shared], e.Suffix...)
		switch {
		case string(key) == path:
			return e.Value, nil
		case string(key) > path:
			return nil, child
		}
		child = e.Right
	}
	return nil, child
}

// hasChildren reports whether the node has children.
func (n *Node) hasChildren() bool {
	for _, e := range n.Entries {
		if e.Right != nil {
			return true
		}
	}
	return n.Left != nil
}

// indigo returns the node with this CID in the form that indigo's mst changes.
func (n *Node) indigo(c cid.Cid) *mst.Node {
	out := &mst.Node{CID: &c, Height: -1, Entries: make([]mst.NodeEntry, 0, 2*len(n.Entries)+1)}
	child := func(digest []byte) {
		if digest != nil {
			c := block.CID(digest)
			out.Entries = append(out.Entries, mst.NodeEntry{ChildCID: &c})
		}
	}
	child(n.Left)
	var last []byte
	for i, e := range n.Entries {
		key := append(append(make([]byte, 0, e.Shared+len(e.Suffix)), last[:e.Shared]...), e.Suffix...)
		value := block.CID(e.Value)
		out.Entries = append(out.Entries, mst.NodeEntry{Key: key, Value: &value})
		child(e.Right)
		if i == 0 {
			out.Height = mst.HeightForKey(key)
		}
		last = key
	}
	return out
}

// encode is the inverse of Parse. The children must have their CIDs.
func encode(n *mst.Node) ([]byte, error) {
	size, count := 64, 0
	for i := range n.Entries {
		if n.Entries[i].IsValue() {
			size += 96 + len(n.Entries[i].Key)
			count++
		}
	}
	out := lexicon.AppendHead(append(make([]byte, 0, size), "\xa2\x61e"...), 4<<5, uint64(count))
	var left, child *cid.Cid
	var last []byte
	for i := range n.Entries {
		e := &n.Entries[i]
		switch {
		case e.IsValue():
			shared := mst.CountPrefixLen(last, e.Key)
			last = e.Key
			out = lexicon.AppendHead(append(out, "\xa4\x61k"...), 2<<5, uint64(len(e.Key)-shared))
			out = append(out, e.Key[shared:]...)
			out = lexicon.AppendHead(append(out, "\x61p"...), 0, uint64(shared))
			child = nil
			if i+1 < len(n.Entries) && n.Entries[i+1].IsChild() {
				child = n.Entries[i+1].ChildCID
			}
			out = appendLink(append(out, "\x61t"...), child)
			out = appendLink(append(out, "\x61v"...), e.Value)
		case i == 0:
			left = e.ChildCID
		case n.Entries[i-1].IsChild():
			return nil, fmt.Errorf("%w: two children without a key between them", ErrNode)
		}
	}
	return appendLink(append(out, "\x61l"...), left), nil
}

// appendLink writes the CID of a DAG-CBOR block, or null.
func appendLink(out []byte, c *cid.Cid) []byte {
	if c == nil {
		return append(out, 0xf6)
	}
	return append(append(out, "\xd8\x2a\x58\x25\x00"...), c.KeyString()...)
}

// parser consumes bytes from the front of rest. After the first unexpected byte
// it has failed, and returns nothing more.
type parser struct {
	rest   []byte
	failed bool
}

func (p *parser) take(n int) []byte {
	if p.failed || n > len(p.rest) {
		p.failed = true
		return nil
	}
	taken := p.rest[:n:n]
	p.rest = p.rest[n:]
	return taken
}

func (p *parser) literal(want string) {
	if string(p.take(len(want))) != want {
		p.failed = true
	}
}

// head reads the head of a CBOR item of this major type, whose argument must have the
// shortest form and fit in 16 bits.
func (p *parser) head(major byte) int {
	first := p.take(1)
	if p.failed || first[0]&0xe0 != major {
		p.failed = true
		return 0
	}
	switch n := first[0] & 0x1f; {
	case n < 24:
		return int(n)
	case n == 24:
		if b := p.take(1); !p.failed && b[0] >= 24 {
			return int(b[0])
		}
	case n == 25:
		if b := p.take(2); !p.failed && b[0] > 0 {
			return int(binary.BigEndian.Uint16(b))
		}
	}
	p.failed = true
	return 0
}

// link reads a CID: tag 42, then a byte string that begins with a zero.
func (p *parser) link() (digest []byte) {
	p.literal("\xd8\x2a\x58\x25\x00" + block.Prefix)
	return p.take(block.DigestSize)
}

func (p *parser) linkOrNull() []byte {
	if len(p.rest) > 0 && p.rest[0] == 0xf6 {
		p.take(1)
		return nil
	}
	return p.link()
}
