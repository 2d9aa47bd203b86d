package repo

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// encodedNodes are of all forms that a builder makes.
func encodedNodes(t testing.TB) (nodes [][]byte) {
	t.Helper()
	build := builder{put: func(_ cid.Cid, data []byte) error {
		nodes = append(nodes, bytes.Clone(data))
		return nil
	}}
	for i := range 3000 {
		key := fmt.Sprintf("com.example.note/%05d", i)
		if i%500 == 7 {
			key += string(bytes.Repeat([]byte("x"), i/5)) // suffixes with long heads
		}
		if err := build.add(key, CIDOf([]byte(key))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := build.root(); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// sameAsMST compares a node that was parsed with what mst makes of its bytes.
func sameAsMST(t *testing.T, n node, data []byte) {
	t.Helper()
	want, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("mst refuses %x: %v", data, err)
	}
	same := func(digest []byte, c *cid.Cid) bool {
		return digest == nil && c == nil || digest != nil && c != nil && cidOfDigest(digest) == *c
	}
	if len(n.entries) != len(want.Entries) || !same(n.left, want.Left) {
		t.Fatalf("got %+v, mst says %+v", n, want)
	}
	for i, e := range n.entries {
		w := want.Entries[i]
		if int64(e.shared) != w.PrefixLen || !bytes.Equal(e.suffix, w.KeySuffix) || !same(e.value, &w.Value) || !same(e.right, w.Right) {
			t.Errorf("entry %d: got %+v, mst says %+v", i, e, w)
		}
	}
}

func TestNode(t *testing.T) {
	t.Parallel()
	var n node
	for _, data := range encodedNodes(t) {
		if err := n.parse(digestOf(CIDOf(data)), data); err != nil {
			t.Fatal(err)
		}
		sameAsMST(t, n, data)
		decoded, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		again := decoded.Node(nil)
		if got, err := encodeNode(&again); err != nil || !bytes.Equal(got, data) {
			t.Errorf("encoded again: %v\n%x, mst says\n%x", err, got, data)
		}
		if err := n.parse(digestOf(CIDOf(nil)), data); err == nil {
			t.Error("parsed under the digest of something else")
		}
		for _, cut := range []int{1, len(data) / 2, len(data) - 1} {
			part := data[:cut]
			if err := n.parse(digestOf(CIDOf(part)), part); err == nil {
				t.Errorf("parsed %d of %d bytes", cut, len(data))
			}
		}
		more := append(slices.Clone(data), 0)
		if err := n.parse(digestOf(CIDOf(more)), more); err == nil {
			t.Error("parsed with a byte more")
		}
	}
}

// FuzzNode: what is parsed at all is parsed as mst does, and find never leaves
// its bounds.
func FuzzNode(f *testing.F) {
	nodes := encodedNodes(f)
	for i := 0; i < len(nodes); i += 50 {
		f.Add(nodes[i])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var n node
		if n.parse(digestOf(CIDOf(data)), data) == nil {
			sameAsMST(t, n, data)
			n.find("com.example.note/00007")
		}
	})
}

func TestNodeCache(t *testing.T) {
	t.Parallel()
	var c nodeCache
	key := func(i int) []byte { return digestOf(CIDOf(fmt.Append(nil, i))) }
	hot := []byte("hot")
	c.add(key(-1), hot)
	for i := range 20_000 {
		c.add(key(i), make([]byte, 1000))
		if got := c.get(key(-1)); !bytes.Equal(got, hot) {
			t.Fatalf("after %d others: what is used every time is gone", i)
		}
	}
	held := 0
	for i := range 20_000 {
		c.mu.Lock()
		_, young := c.young[[digestSize]byte(key(i))]
		_, old := c.old[[digestSize]byte(key(i))]
		c.mu.Unlock()
		if young || old {
			held++
		}
	}
	if held*1000 > nodeCacheSize || held*1000 < nodeCacheSize/3 {
		t.Errorf("%d nodes of 1000 bytes are held, in a cache of %d", held, nodeCacheSize)
	}
	c.add(key(-2), make([]byte, nodeCacheSize/8))
	if c.get(key(-2)) != nil {
		t.Error("a huge node is kept")
	}
}
