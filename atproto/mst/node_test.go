package mst

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
)

// encodedNodes returns nodes of all forms that a Builder creates.
func encodedNodes(t testing.TB) (nodes [][]byte) {
	t.Helper()
	build := Builder{Put: func(b block.Block) error {
		nodes = append(nodes, bytes.Clone(b.Data))
		return nil
	}}
	for i := range 3000 {
		key := fmt.Sprintf("com.example.note/%05d", i)
		if i%500 == 7 {
			key += string(bytes.Repeat([]byte("x"), i/5)) // long suffixes
		}
		if err := build.Add(key, block.CIDOf([]byte(key))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := build.Root(); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// sameAsIndigo compares a parsed node with the result of indigo.
func sameAsIndigo(t *testing.T, n Node, data []byte) {
	t.Helper()
	want, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("indigo refuses %x: %v", data, err)
	}
	same := func(digest []byte, c *cid.Cid) bool {
		return digest == nil && c == nil || digest != nil && c != nil && block.CID(digest) == *c
	}
	if len(n.Entries) != len(want.Entries) || !same(n.Left, want.Left) {
		t.Fatalf("got %+v, indigo %+v", n, want)
	}
	for i, e := range n.Entries {
		w := want.Entries[i]
		if int64(e.Shared) != w.PrefixLen || !bytes.Equal(e.Suffix, w.KeySuffix) || !same(e.Value, &w.Value) || !same(e.Right, w.Right) {
			t.Errorf("entry %d: got %+v, indigo %+v", i, e, w)
		}
	}
}

func TestNode(t *testing.T) {
	t.Parallel()
	var n Node
	for _, data := range encodedNodes(t) {
		c := block.CIDOf(data)
		if err := n.Parse(block.DigestOf(c), data); err != nil {
			t.Fatal(err)
		}
		sameAsIndigo(t, n, data)
		decoded, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		want, got := decoded.Node(&c), n.indigo(c)
		if fmt.Sprint(want.Height, len(want.Entries)) != fmt.Sprint(got.Height, len(got.Entries)) {
			t.Errorf("converted: height %d with %d entries, indigo %d with %d", got.Height, len(got.Entries), want.Height, len(want.Entries))
		}
		for _, m := range []*mst.Node{&want, got} {
			if again, err := encode(m); err != nil || !bytes.Equal(again, data) {
				t.Errorf("encoded again: %v\n%x, want\n%x", err, again, data)
			}
		}
		if err := n.Parse(block.DigestOf(block.CIDOf(nil)), data); err == nil {
			t.Error("parsed with another digest")
		}
		for _, cut := range []int{1, len(data) / 2, len(data) - 1} {
			part := data[:cut]
			if err := n.Parse(block.DigestOf(block.CIDOf(part)), part); err == nil {
				t.Errorf("parsed %d of %d bytes", cut, len(data))
			}
		}
		more := append(slices.Clone(data), 0)
		if err := n.Parse(block.DigestOf(block.CIDOf(more)), more); err == nil {
			t.Error("parsed with a trailing byte")
		}
	}
}

// FuzzNode compares parsed nodes with indigo's, and checks that Find does not panic.
func FuzzNode(f *testing.F) {
	nodes := encodedNodes(f)
	for i := 0; i < len(nodes); i += 50 {
		f.Add(nodes[i])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var n Node
		if n.ParseTrusted(data) == nil {
			sameAsIndigo(t, n, data)
			n.Find("com.example.note/00007")
		}
	})
}

func TestCache(t *testing.T) {
	t.Parallel()
	c := NewCache()
	key := func(i int) []byte { return block.DigestOf(block.CIDOf(fmt.Append(nil, i))) }
	hot := []byte("hot")
	c.Add(key(-1), hot)
	for i := range 20_000 {
		c.Add(key(i), make([]byte, 1000))
		if got := c.Get(key(-1)); !bytes.Equal(got, hot) {
			t.Fatalf("a recently used node is not cached after %d other nodes", i)
		}
	}
	if n := c.nodes.Len(); n*1000 > cacheSize || n*1000 < cacheSize/3 {
		t.Errorf("%d nodes of 1000 bytes in a cache of %d bytes", n, cacheSize)
	}
	c.Add(key(-2), make([]byte, cacheSize/8))
	if c.Get(key(-2)) != nil {
		t.Error("a node above the maximum size is cached")
	}
}
