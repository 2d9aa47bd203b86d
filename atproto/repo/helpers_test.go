package repo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/frame"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"

	tree "github.com/tidings-dev/tidings/atproto/mst"
)

const testDID = "did:web:localhost%3A5000"

func testKey(t testing.TB) atcrypto.PrivateKeyExportable {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testConfig(t testing.TB) Config {
	return Config{Dir: "hold", DID: testDID, Key: testKey(t), FS: vfs.NewMem(), Reserve: 1}
}

// profile is the record that is never deleted.
func profile() Write {
	return Write{Create, "app.bsky.actor.profile", "self", record("profile")}
}

func record(text string) []byte {
	data, err := atdata.MarshalCBOR(map[string]any{"$type": "com.example.note", "text": text})
	if err != nil {
		panic(err)
	}
	return data
}

func initRepo(t testing.TB, cfg Config, first ...Write) *Repo {
	t.Helper()
	r, err := Init(cfg, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func openRepo(t testing.TB, cfg Config) *Repo {
	t.Helper()
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func apply(t testing.TB, r *Repo, writes ...Write) Result {
	t.Helper()
	res, err := r.Apply(context.Background(), writes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func note(action Action, rkey, text string) Write {
	w := Write{Action: action, Collection: "com.example.note", RKey: rkey}
	if action != Delete {
		w.Record = record(text)
	}
	return w
}

// model has the expected records of a repo.
type model map[string][]byte

func (m model) apply(writes []Write) {
	for _, w := range writes {
		if w.Action == Delete {
			delete(m, tree.JoinPath(w.Collection, w.RKey))
		} else {
			m[tree.JoinPath(w.Collection, w.RKey)] = w.Record
		}
	}
}

func (m model) root(t testing.TB) cid.Cid {
	t.Helper()
	cids := map[string]cid.Cid{}
	for path, rec := range m {
		cids[path] = block.CIDOf(rec)
	}
	tree, err := mst.LoadTreeFromMap(cids)
	if err != nil {
		t.Fatal(err)
	}
	root, err := tree.RootCID()
	if err != nil {
		t.Fatal(err)
	}
	return *root
}

// checkStore compares all keys of the database with the model: records, index, and
// exactly the nodes of the tree.
func checkStore(t testing.TB, r *Repo, m model) {
	t.Helper()
	if got, want := r.Head().Data, m.root(t); got != want {
		t.Fatalf("root is %s, a new tree has %s", got, want)
	}
	var car bytes.Buffer
	if err := r.Export(context.Background(), &car); err != nil {
		t.Fatal(err)
	}
	nodes := verifyCAR(t, r, car.Bytes(), m)
	for prefix, want := range map[string]int{layout.PrefixNode: nodes, layout.PrefixRecord: len(m), layout.PrefixIndex: len(m)} {
		if got := countKeys(t, r, prefix); got != want {
			t.Errorf("%d keys under %s, want %d", got, prefix, want)
		}
	}
}

func countKeys(t testing.TB, r *Repo, prefix string) int {
	t.Helper()
	n, err := layout.Count(r.store, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// verifyCAR loads an export with indigo and compares it with the model. It returns
// the number of nodes.
func verifyCAR(t testing.TB, r *Repo, car []byte, m model) int {
	t.Helper()
	ctx := context.Background()
	commit, loaded, err := indigo.LoadRepoFromCAR(ctx, bytes.NewReader(car))
	if err != nil {
		t.Fatal(err)
	}
	verifySignature(t, r.cfg, commit)
	if loaded.MST.IsPartial() {
		t.Fatal("nodes are missing in the export")
	}
	if err := loaded.MST.Verify(); err != nil {
		t.Fatal(err)
	}
	got := map[string]cid.Cid{}
	if err := loaded.MST.WriteToMap(got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(m) {
		t.Fatalf("the export has %d records, want %d", len(got), len(m))
	}
	for path, rec := range m {
		blk, err := loaded.RecordStore.Get(ctx, got[path])
		if err != nil || !bytes.Equal(blk.RawData(), rec) {
			t.Fatalf("the export has a different %s (%v)", path, err)
		}
	}
	var count func(n *mst.Node) int
	count = func(n *mst.Node) int {
		total := 1
		for _, e := range n.Entries {
			if e.Child != nil {
				total += count(e.Child)
			}
		}
		return total
	}
	return count(loaded.MST.Root)
}

func verifySignature(t testing.TB, cfg Config, commit *indigo.Commit) {
	t.Helper()
	pub, err := cfg.Key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.VerifySignature(pub); err != nil {
		t.Fatal(err)
	}
}

// decode decodes an event.
func decode(t testing.TB, e Event) any {
	t.Helper()
	msg, err := frame.Decode(e.Frame)
	if err != nil {
		t.Fatalf("event %d: %v", e.Seq, err)
	}
	return msg
}

func decodeCommit(t testing.TB, e Event) *comatproto.SyncSubscribeRepos_Commit {
	t.Helper()
	return decode(t, e).(*comatproto.SyncSubscribeRepos_Commit)
}

func decodeSync(t testing.TB, e Event) *comatproto.SyncSubscribeRepos_Sync {
	t.Helper()
	return decode(t, e).(*comatproto.SyncSubscribeRepos_Sync)
}

// kindOf is the t of a frame's header.
func kindOf(e Event) string { return string(e.Frame[4 : 4+int(e.Frame[3]&0x1f)]) }

func isCommit(e Event) bool { return kindOf(e) == frame.KindCommit }

// verifyFrame inverts a #commit with indigo, and checks members that its verifier
// ignores.
func verifyFrame(t testing.TB, cfg Config, e Event, prev *comatproto.SyncSubscribeRepos_Commit) *comatproto.SyncSubscribeRepos_Commit {
	t.Helper()
	ctx := context.Background()
	msg := decodeCommit(t, e)
	if _, err := indigo.VerifyCommitMessage(ctx, msg); err != nil {
		t.Fatalf("event %d: %v (%d ops)", e.Seq, err, len(msg.Ops))
	}
	commit, id, err := indigo.LoadCommitFromCAR(ctx, bytes.NewReader(msg.Blocks))
	if err != nil {
		t.Fatal(err)
	}
	verifySignature(t, cfg, commit)
	switch {
	case *id != cid.Cid(msg.Commit):
		t.Fatalf("event %d: commit is %s, the CAR's root %s", e.Seq, msg.Commit, id)
	case uint64(msg.Seq) != e.Seq:
		t.Fatalf("event %d says that it is %d", e.Seq, msg.Seq)
	case prev == nil && (msg.Since != nil || msg.PrevData != nil):
		t.Fatalf("event %d: the first commit has a predecessor", e.Seq)
	case prev != nil && (msg.Since == nil || *msg.Since != prev.Rev || msg.Rev <= prev.Rev):
		t.Fatalf("event %d: rev %s since %v, after rev %s", e.Seq, msg.Rev, msg.Since, prev.Rev)
	}
	if prev != nil {
		before, _, err := indigo.LoadCommitFromCAR(ctx, bytes.NewReader(prev.Blocks))
		if err != nil {
			t.Fatal(err)
		}
		if msg.PrevData == nil || cid.Cid(*msg.PrevData) != before.Data {
			t.Fatalf("event %d: prevData %v, want %s", e.Seq, msg.PrevData, before.Data)
		}
	}
	return msg
}

func events(t testing.TB, r *Repo, after uint64) []Event {
	t.Helper()
	var all []Event
	for {
		page, err := r.Events(after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = page[len(page)-1].Seq
	}
}

// history generates calls: TID-like and arbitrary keys, creates, updates and
// deletes, sometimes two of one path.
type history struct {
	rng  *rand.Rand
	have []string
	n    int

	emptied bool // all records were deleted
}

func (h *history) next(m model, ops int, fill float64) []Write {
	var writes []Write
	used := map[string]bool{}
	for len(writes) < ops {
		h.n++
		if len(h.have) == 0 || h.rng.Float64() < fill {
			key := syntax.NewTID(int64(1_700_000_000_000_000+h.n*1000), uint(h.n)).String()
			if h.rng.IntN(2) == 0 {
				key = fmt.Sprintf("k%x", h.rng.Uint32())
			}
			w := note(Create, key, fmt.Sprint(h.n))
			path := tree.JoinPath(w.Collection, w.RKey)
			if _, ok := m[path]; ok || used[path] {
				continue
			}
			used[path] = true
			h.have = append(h.have, key)
			writes = append(writes, w)
			if h.rng.IntN(10) == 0 {
				writes = append(writes, note(Update, key, fmt.Sprint(h.n, "again")))
			}
			continue
		}
		i := h.rng.IntN(len(h.have))
		key := h.have[i]
		path := "com.example.note/" + key
		if used[path] {
			continue
		}
		used[path] = true
		if h.rng.IntN(2) == 0 {
			writes = append(writes, note(Update, key, fmt.Sprint(h.n)))
			continue
		}
		h.have[i] = h.have[len(h.have)-1]
		h.have = h.have[:len(h.have)-1]
		writes = append(writes, note(Delete, key, ""))
	}
	return writes
}

func fixedClock(at time.Time) func() time.Time { return func() time.Time { return at } }

func deleteKey(s *store.Store, key []byte) error {
	b := s.NewBatch()
	if err := b.Delete(key); err != nil {
		return err
	}
	return s.Commit(b, store.NoSync)
}
