package mst

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
)

// blocks is a store of nodes.
type blocks map[cid.Cid][]byte

func (b blocks) put(n block.Block) error { b[n.CID] = n.Data; return nil }

func (b blocks) load(c cid.Cid) ([]byte, error) {
	data, ok := b[c]
	if !ok {
		return nil, fmt.Errorf("no node %s", c)
	}
	return data, nil
}

func build(t testing.TB, stored blocks, paths map[string]cid.Cid) cid.Cid {
	t.Helper()
	b := Builder{Put: stored.put}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if err := b.Add(path, paths[path]); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Builder creates the same tree as indigo, and a strict walk visits all of it.
func TestBuildAndWalk(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 3, 10, 100, 3000} {
		paths := map[string]cid.Cid{}
		for i := range n {
			paths[fmt.Sprintf("com.example.note/%06d", i*7919%1000003)] = block.CIDOf(fmt.Append(nil, i))
		}
		stored := blocks{}
		got := build(t, stored, paths)
		tree, err := mst.LoadTreeFromMap(paths)
		if err != nil {
			t.Fatal(err)
		}
		want, err := tree.RootCID()
		if err != nil {
			t.Fatal(err)
		}
		if got != *want {
			t.Errorf("%d paths: root %s, want %s", n, got, want)
		}
		seen := map[string]cid.Cid{}
		w := Walk{
			Strict: true,
			Load: func(digest, buf []byte) ([]byte, error) {
				data, err := stored.load(block.CID(digest))
				return append(buf, data...), err
			},
			Entry: func(path, record []byte) error { seen[string(path)] = block.CID(record); return nil },
		}
		if err := w.Run(context.Background(), block.DigestOf(got)); err != nil || !maps.Equal(seen, paths) || int(w.Nodes) != len(stored) {
			t.Errorf("%d paths: visited %d, and %d of %d nodes: %v", n, len(seen), w.Nodes, len(stored), err)
		}
	}
	b := Builder{Put: func(block.Block) error { return nil }}
	b.Add("b", block.CIDOf(nil))
	if err := b.Add("a", block.CIDOf(nil)); err == nil {
		t.Error("paths out of order are accepted")
	}
}

// A strict walk reports each invalid node and continues after it.
func TestWalkInvalid(t *testing.T) {
	t.Parallel()
	value := block.CIDOf([]byte("record"))
	child := func(c cid.Cid) mst.NodeEntry { return mst.NodeEntry{ChildCID: &c} }
	entry := func(path string) mst.NodeEntry { return mst.NodeEntry{Key: []byte(path), Value: &value} }
	stored := blocks{}
	node := func(entries ...mst.NodeEntry) cid.Cid {
		data, err := encode(&mst.Node{Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		c := block.CIDOf(data)
		stored[c] = data
		return c
	}
	byHeight := map[int][]string{}
	for i := range 100 {
		path := fmt.Sprintf("com.example.note/%02d", i)
		h := mst.HeightForKey([]byte(path))
		byHeight[h] = append(byHeight[h], path)
	}
	low, high := byHeight[0], byHeight[1]
	changed := node(entry(low[0]), entry(low[1]), entry(low[2]))
	stored[changed] = append(slices.Clone(stored[changed]), 0)
	for name, tc := range map[string]struct {
		root cid.Cid
		want error
	}{
		"wrong height":         {node(entry(low[0]), entry(high[0])), ErrNode},
		"order":                {node(entry(low[1]), entry(low[0])), ErrNode},
		"duplicate path":       {node(entry(low[0]), entry(low[0])), ErrNode},
		"invalid path":         {node(entry("note")), ErrNode},
		"children at height 0": {node(child(node(entry(low[0]))), entry(low[1])), ErrNode},
		"no entries":           {node(child(node(entry(low[0])))), ErrNode},
		"changed bytes":        {changed, ErrHash},
		"order across nodes":   {node(entry(high[0]), child(node(entry("com.example.note/"+"00")))), nil},
	} {
		var found []error
		w := Walk{
			Strict: true,
			Load: func(digest, buf []byte) ([]byte, error) {
				data, err := stored.load(block.CID(digest))
				return append(buf, data...), err
			},
			Entry:   func(path, record []byte) error { return nil },
			Invalid: func(_ []byte, err error) error { found = append(found, err); return nil },
		}
		if err := w.Run(context.Background(), block.DigestOf(tc.root)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(found) != 1 || tc.want != nil && !errors.Is(found[0], tc.want) {
			t.Errorf("%s: got %v, want %v", name, found, tc.want)
		}
	}
}

// TestProofVectors runs the test cases of the indigo module for the nodes that the proof
// of a commit must have.
func TestProofVectors(t *testing.T) {
	t.Parallel()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bluesky-social/indigo").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "atproto/repo/testdata/commit-proof-fixtures.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Comment          string `json:"comment"`
		LeafValue        string `json:"leafValue"`
		Keys, Adds, Dels []string
		RootBefore       string   `json:"rootBeforeCommit"`
		RootAfter        string   `json:"rootAfterCommit"`
		Proof            []string `json:"blocksInProof"`
	}
	if err := json.Unmarshal(data, &cases); err != nil || len(cases) == 0 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Comment, func(t *testing.T) {
			leaf, err := cid.Decode(c.LeafValue)
			if err != nil {
				t.Fatal(err)
			}
			stored := blocks{}
			set := func(tree *Tree, c cid.Cid, keys []string) {
				t.Helper()
				for _, key := range keys {
					if err := tree.Set(key, c); err != nil {
						t.Fatal(err)
					}
				}
			}
			diff := func(tree *Tree) Diff {
				t.Helper()
				d, err := tree.Diff()
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			tree := Empty(stored.load)
			set(tree, leaf, c.Keys)
			before := diff(tree)
			for _, n := range before.Added {
				stored.put(n)
			}
			if tree, err = Load(before.Root, stored.load); err != nil {
				t.Fatal(err)
			}
			set(tree, leaf, c.Adds)
			set(tree, cid.Undef, c.Dels)
			now := diff(tree)
			if before.Root.String() != c.RootBefore || now.Root.String() != c.RootAfter {
				t.Errorf("roots %s and %s, want %s and %s", before.Root, now.Root, c.RootBefore, c.RootAfter)
			}
			var proof []string
			for _, b := range now.Proof {
				proof = append(proof, b.CID.String())
			}
			for _, want := range c.Proof {
				if !slices.Contains(proof, want) {
					t.Errorf("the proof lacks %s", want)
				}
			}
		})
	}
}

func TestCheckPath(t *testing.T) {
	t.Parallel()
	for _, rkey := range []string{"self", "3jui7kd54zh2y", "sha256:abc", "~a.b_c-d"} {
		if err := CheckPath("io.atcr.hold.layer", rkey); err != nil {
			t.Error(err)
		}
	}
	for _, path := range [][2]string{{"io.atcr.hold.layer", ".."}, {"io.atcr.hold.layer", "a b"}, {"io", "a"}, {"", "a"}, {"a/b.c.d", "e"}} {
		if err := CheckPath(path[0], path[1]); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %v", path, err)
		}
	}
}
