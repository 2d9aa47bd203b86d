package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
)

const importLimit = 10 << 20

func exportCAR(t testing.TB, r *Repo) []byte {
	t.Helper()
	var car bytes.Buffer
	if err := r.Export(context.Background(), &car); err != nil {
		t.Fatal(err)
	}
	return car.Bytes()
}

// shuffled returns the same CAR file with its blocks in another order, as other
// servers write them.
func shuffled(t testing.TB, car []byte) []byte {
	t.Helper()
	var blocks []block.Block
	if err := eachBlock(car, func(c cid.Cid, data []byte) error {
		blocks = append(blocks, block.Block{CID: c, Data: bytes.Clone(data)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	root := blocks[0].CID
	rand.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	return carOf(root, blocks...)
}

func carOf(root cid.Cid, blocks ...block.Block) []byte {
	var out bytes.Buffer
	car.WriteHeader(&out, root)
	for _, b := range blocks {
		car.WriteBlock(&out, b.CID, b.Data)
	}
	return out.Bytes()
}

// fillNotes writes n records.
func fillNotes(t testing.TB, r *Repo, m model, n int) {
	t.Helper()
	for from := 0; from < n; from += 100 {
		var writes []Write
		for i := from; i < min(n, from+100); i++ {
			writes = append(writes, note(Create, fmt.Sprintf("n%05d", i), fmt.Sprint("text ", i)))
		}
		apply(t, r, writes...)
		m.apply(writes)
	}
}

// An export is imported into a repo of the same account with another key and
// replaces its contents, by one commit and one #sync.
func TestImport(t *testing.T) {
	t.Parallel()
	source, m := initRepo(t, testConfig(t), profile()), model{}
	m.apply([]Write{profile()})
	fillNotes(t, source, m, 700)
	b := upload(t, source, "blob")
	writes := []Write{picture(Create, "p", b)}
	apply(t, source, writes...)
	m.apply(writes)

	cfg := testConfig(t)
	target := initRepo(t, cfg, profile(), note(Create, "n00001", "another text"), note(Create, "mine", "to be deleted"))
	before := target.Head()
	result, err := target.Import(t.Context(), bytes.NewReader(shuffled(t, exportCAR(t, source))), importLimit)
	if err != nil {
		t.Fatal(err)
	}
	checkStore(t, target, m)
	head := target.Head()
	if head.Commit != result.Commit || head.Rev != result.Rev || head.Rev <= source.Head().Rev || head.Rev <= before.Rev {
		t.Errorf("got %+v and %+v after %+v", result, head, before)
	}
	events, err := target.Events(before.Seq, 10)
	if err != nil || len(events) != 1 || kindOf(events[0]) != "#sync" {
		t.Fatalf("got %d events, %v, want a #sync", len(events), err)
	}
	var sync comatproto.SyncSubscribeRepos_Sync
	if err := sync.UnmarshalCBOR(bytes.NewReader(events[0].Frame[len("\xa2\x61t\x65#sync\x62op\x01"):])); err != nil || sync.Rev != head.Rev {
		t.Errorf("got %+v, %v", sync, err)
	}
	missing, err := target.MissingBlobs(cid.Undef, 10)
	if err != nil || len(missing) != 1 || missing[0] != (MissingBlob{b.CID, "com.example.picture", "p"}) {
		t.Errorf("missing: got %v, %v", missing, err)
	}
	wantBlob(t, target, b.CID, "")
	upload(t, target, "blob")
	wantBlob(t, target, b.CID, "blob")
	if missing, _ := target.MissingBlobs(cid.Undef, 10); len(missing) != 0 {
		t.Errorf("still missing: %v", missing)
	}
	if names := blobFileNames(t, cfg); len(names) != 1 {
		t.Errorf("remaining files: %v", names)
	}
	// The next commit follows from the state of the #sync.
	next := []Write{note(Update, "n00001", "changed"), unpicture("p")}
	apply(t, target, next...)
	m.apply(next)
	checkStore(t, target, m)
	events, err = target.Events(head.Seq, 10)
	if err != nil || len(events) != 1 {
		t.Fatalf("got %d events, %v", len(events), err)
	}
	msg := decodeCommit(t, events[0])
	if _, err := indigo.VerifyCommitMessage(t.Context(), msg); err != nil {
		t.Error(err)
	}
	if *msg.Since != head.Rev || cid.Cid(*msg.PrevData) != head.Data {
		t.Errorf("the commit is since %s, want %s", *msg.Since, head.Rev)
	}
	target.Close()
	checkStore(t, openRepo(t, cfg), m)
}

// A second import needs only the changed records.
func TestImportDifference(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r, m := initRepo(t, cfg, profile()), model{}
	m.apply([]Write{profile()})
	fillNotes(t, r, m, 50)
	full := exportCAR(t, r)
	var few []block.Block
	if err := eachBlock(full, func(c cid.Cid, data []byte) error {
		if !bytes.Contains(data, []byte("text ")) {
			few = append(few, block.Block{CID: c, Data: bytes.Clone(data)})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	apply(t, r, note(Create, "extra", "1"))
	if _, err := r.Import(t.Context(), bytes.NewReader(carOf(few[0].CID, few...)), importLimit); err != nil {
		t.Fatal(err)
	}
	checkStore(t, r, m)
	apply(t, r, note(Delete, "n00007", ""))
	if _, err := r.Import(t.Context(), bytes.NewReader(carOf(few[0].CID, few...)), importLimit); !errors.Is(err, ErrInvalidCAR) || !strings.Contains(err.Error(), "com.example.note/n00007") {
		t.Errorf("got %v, want an error with the missing record", err)
	}
}

func TestImportRefused(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r, m := initRepo(t, cfg, profile()), model{}
	m.apply([]Write{profile()})
	fillNotes(t, r, m, 20)
	good := exportCAR(t, r)
	var blocks []block.Block
	if err := eachBlock(good, func(c cid.Cid, data []byte) error {
		blocks = append(blocks, block.Block{CID: c, Data: bytes.Clone(data)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	commit := func(did string, data cid.Cid) block.Block {
		t.Helper()
		signed, err := sign(did, cfg.Key, data, r.Head().Rev)
		if err != nil {
			t.Fatal(err)
		}
		return block.Block{CID: block.CIDOf(signed), Data: signed}
	}
	float := []byte("\xa1\x61a\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00") // {"a": 1.5}
	tree := func(records map[string][]byte, change func(*mst.NodeData)) []byte {
		t.Helper()
		cids := map[string]cid.Cid{}
		all := []block.Block{}
		for path, data := range records {
			cids[path] = block.CIDOf(data)
			all = append(all, block.Block{CID: block.CIDOf(data), Data: data})
		}
		built, err := mst.LoadTreeFromMap(cids)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := built.RootCID(); err != nil {
			t.Fatal(err)
		}
		nd := built.Root.NodeData()
		change(&nd)
		node, _, err := nd.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		top := commit(testDID, block.CIDOf(node))
		return carOf(top.CID, slices.Concat([]block.Block{top, {CID: block.CIDOf(node), Data: node}}, all)...)
	}
	same := func(*mst.NodeData) {}
	other := commit("did:web:other.example.com", r.Head().Data)
	big := make([]byte, importLimit)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		name string
		car  []byte
		want error
		text string
	}{
		{"empty", nil, ErrInvalidCAR, ""},
		{"no CAR", []byte("hello"), ErrInvalidCAR, ""},
		{"truncated", good[:len(good)-10], ErrInvalidCAR, ""},
		{"a flipped bit", flipped, ErrInvalidCAR, "don't match"},
		{"too long", carOf(blocks[0].CID, append(slices.Clone(blocks), block.Block{CID: block.CIDOf(big), Data: big})...), ErrTooLarge, ""},
		{"without its root", carOf(blocks[0].CID, blocks[1:]...), ErrInvalidCAR, "root " + blocks[0].CID.String() + " is missing"},
		{"root is not a commit", carOf(blocks[1].CID, blocks...), ErrInvalidCAR, "commit: "},
		{"of another account", carOf(other.CID, append(blocks, other)...), ErrInvalidCAR, "of did:web:other.example.com, not of " + testDID},
		{"without a node", carOf(blocks[0].CID, slices.Concat(blocks[:1], blocks[2:])...), ErrInvalidCAR, ": missing"},
		{"a float", tree(map[string][]byte{"com.example.note/a": float}, same), ErrInvalidCAR, "Could not parse record at 'com.example.note/a'"},
		{"an invalid key", tree(map[string][]byte{"com.example.note/a b": record("x")}, same), ErrInvalidCAR, "record key"},
		{"keys out of order", tree(map[string][]byte{"com.example.note/a": record("x")}, func(nd *mst.NodeData) {
			nd.Entries = append(nd.Entries, nd.Entries[0])
		}), ErrInvalidCAR, "follows"},
		{"a node at the wrong height", tree(map[string][]byte{"com.example.note/a": record("x")}, func(nd *mst.NodeData) {
			nd.Entries[0].KeySuffix = []byte("com.example.note/b")
			nd.Entries = append(nd.Entries, mst.EntryData{KeySuffix: []byte("com.example.note/zzz5"), Value: nd.Entries[0].Value}, mst.EntryData{KeySuffix: []byte("com.example.note/zzz6"), Value: nd.Entries[0].Value}, mst.EntryData{KeySuffix: []byte("com.example.note/zzz7"), Value: nd.Entries[0].Value})
		}), ErrInvalidCAR, "invalid tree node"},
	} {
		before := r.Head()
		_, err := r.Import(t.Context(), bytes.NewReader(c.car), importLimit)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v, want %v with %q", c.name, err, c.want, c.text)
		}
		if r.Head() != before {
			t.Fatalf("%s: the head changed", c.name)
		}
	}
	if names := blobFileNames(t, cfg); len(names) != 0 {
		t.Errorf("remaining files: %v", names)
	}
	checkStore(t, r, m)
	fillMore := []Write{note(Create, "more", "1")}
	apply(t, r, fillMore...)
	m.apply(fillMore)
	checkStore(t, r, m)
}

func FuzzImport(f *testing.F) {
	r := initRepo(f, testConfig(f), profile(), note(Create, "a", "1"), note(Create, "b", "1"))
	car := exportCAR(f, r)
	f.Add(car)
	f.Add(car[:len(car)/2])
	f.Fuzz(func(t *testing.T, car []byte) {
		before := r.Head()
		if _, err := r.Import(t.Context(), bytes.NewReader(car), 1<<16); err != nil && r.Head() != before {
			t.Error("a refused import changed the head")
		}
		if err := r.Health(); err != nil {
			t.Fatal(err)
		}
	})
}
