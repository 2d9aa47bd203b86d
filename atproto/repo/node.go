package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// node is an encoded node of the tree, taken apart where it lies: its slices
// are of the encoded bytes. Reading goes over very many nodes, and mst's own
// decoding makes a dozen objects of each.
type node struct {
	left    []byte // digest of the child before the first entry; nil: none
	entries []nodeEntry
}

type nodeEntry struct {
	shared int    // bytes of the key that are those of the entry before
	suffix []byte // the rest of the key
	value  []byte // digest of the record
	right  []byte // digest of the child after the entry; nil: none
}

// cidPrefix is what comes before the digest in the binary CIDs of our blocks:
// CIDv1, dag-cbor, sha2-256, 32 bytes.
const cidPrefix = "\x01\x71\x12\x20"

// parse reads a node as mst writes it: {"e": [{"k": suffix, "p": shared, "t":
// right, "v": value}], "l": left} in canonical DAG-CBOR, with links of our kind
// only. It refuses bytes that don't have this digest. It may use what n held.
func (n *node) parse(digest, data []byte) error {
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], digest) || !n.read(data) {
		return fmt.Errorf("node %s: %w", cidOfDigest(digest), errDamaged)
	}
	return nil
}

// read is parse for bytes that are known to have their digest. It reports
// whether they are a node.
func (n *node) read(data []byte) bool {
	p := nodeParser{rest: data}
	p.literal("\xa2\x61e")
	count := p.head(4 << 5)
	n.entries = n.entries[:0]
	length := 0 // of the key before
	for range count {
		var e nodeEntry
		p.literal("\xa4\x61k")
		e.suffix = p.take(p.head(2 << 5))
		p.literal("\x61p")
		e.shared = p.head(0)
		p.literal("\x61t")
		e.right = p.linkOrNull()
		p.literal("\x61v")
		e.value = p.link()
		if p.bad || e.shared > length {
			return false
		}
		length = e.shared + len(e.suffix)
		n.entries = append(n.entries, e)
	}
	p.literal("\x61l")
	n.left = p.linkOrNull()
	return !p.bad && len(p.rest) == 0
}

// encodeNode is what parse reads. The children have to have their CIDs.
func encodeNode(n *mst.Node) ([]byte, error) {
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
			return nil, errors.New("two children of a node have no key between them")
		}
	}
	return appendLink(append(out, "\x61l"...), left), nil
}

// appendLink writes a CID of our kind, or null.
func appendLink(out []byte, c *cid.Cid) []byte {
	if c == nil {
		return append(out, 0xf6)
	}
	return append(append(out, "\xd8\x2a\x58\x25\x00"...), c.KeyString()...)
}

// find says where the search for path goes on: to the record's digest, or to
// the child's, or nowhere.
func (n *node) find(path string) (record, child []byte) {
	child = n.left
	var room [256]byte
	key := room[:0]
	for _, e := range n.entries {
		key = append(key[:e.shared], e.suffix...)
		switch {
		case string(key) == path:
			return e.value, nil
		case string(key) > path:
			return nil, child
		}
		child = e.right
	}
	return nil, child
}

// nodeParser takes bytes from the front of rest; once they are others than
// expected it is bad and stays so.
type nodeParser struct {
	rest []byte
	bad  bool
}

func (p *nodeParser) take(n int) []byte {
	if p.bad || n > len(p.rest) {
		p.bad = true
		return nil
	}
	taken := p.rest[:n:n]
	p.rest = p.rest[n:]
	return taken
}

func (p *nodeParser) literal(want string) {
	if string(p.take(len(want))) != want {
		p.bad = true
	}
}

// head reads the head of a CBOR item of a major type, with a number of at most
// 16 bits.
func (p *nodeParser) head(major byte) int {
	first := p.take(1)
	if p.bad || first[0]&0xe0 != major {
		p.bad = true
		return 0
	}
	switch n := first[0] & 0x1f; {
	case n < 24:
		return int(n)
	case n == 24:
		if b := p.take(1); !p.bad && b[0] >= 24 {
			return int(b[0])
		}
	case n == 25:
		if b := p.take(2); !p.bad && b[0] > 0 {
			return int(binary.BigEndian.Uint16(b))
		}
	}
	p.bad = true
	return 0
}

// link reads a CID, in CBOR a byte string with a tag and a zero before it.
func (p *nodeParser) link() (digest []byte) {
	p.literal("\xd8\x2a\x58\x25\x00" + cidPrefix)
	return p.take(digestSize)
}

func (p *nodeParser) linkOrNull() []byte {
	if len(p.rest) > 0 && p.rest[0] == 0xf6 {
		p.take(1)
		return nil
	}
	return p.link()
}
