package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// checkProof looks up a path in its proof with indigo.
func checkProof(t testing.TB, r *Repo, rkey string, want cid.Cid) {
	t.Helper()
	var car bytes.Buffer
	if err := r.Proof(&car, "com.example.note", rkey); err != nil {
		t.Fatal(err)
	}
	commit, loaded, err := indigo.LoadRepoFromCAR(context.Background(), &car)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := r.cfg.Key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.VerifySignature(pub); err != nil || commit.Rev != r.Head().Rev {
		t.Errorf("%s: a commit of rev %s: %v", rkey, commit.Rev, err)
	}
	got, err := loaded.MST.Get([]byte("com.example.note/" + rkey))
	if err != nil || got == nil && want.Defined() || got != nil && *got != want {
		t.Errorf("%s: got %v, %v, want %v", rkey, got, err, want)
	}
	if !want.Defined() {
		return
	}
	if data, err := loaded.RecordStore.Get(context.Background(), want); err != nil || block.CIDOf(data.RawData()) != want {
		t.Errorf("%s: record %v", rkey, err)
	}
}

// Proofs of presence and of absence, while the tree changes and older nodes are in
// the cache.
func TestProof(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	checkProof(t, r, "a", cid.Undef)
	random := rand.New(rand.NewPCG(3, 4))
	have := map[string]cid.Cid{}
	for round := range 40 {
		var writes []Write
		for i := range 30 {
			rkey := fmt.Sprint("k", random.IntN(400))
			_, there := have[rkey]
			w := note(Create, rkey, fmt.Sprint(round, i))
			switch {
			case there && i%2 == 0:
				w = note(Delete, rkey, "")
			case there:
				w = note(Update, rkey, fmt.Sprint(round, i))
			}
			writes = append(writes, w)
			if w.Action == Delete {
				delete(have, rkey)
			} else {
				have[rkey] = block.CIDOf(w.Record)
			}
		}
		apply(t, r, writes...)
		for range 20 {
			rkey := fmt.Sprint("k", random.IntN(400))
			checkProof(t, r, rkey, have[rkey])
		}
	}
}

// A proof never has damaged nodes or records.
func TestProofDamage(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile(), note(Create, "a", "one"))
	root := layout.NodeKey(block.DigestOf(r.Head().Data))
	for name, key := range map[string][]byte{"record": layout.RecordKey("com.example.note/a"), "node": root} {
		sound, err := store.Read(r.store, key)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(sound)
		changed[len(changed)/2] ^= 1
		for _, put := range [][]byte{changed, nil, sound} {
			if put == nil {
				err = deleteKey(r.store, key)
			} else {
				err = r.store.Set(key, put, store.NoSync)
			}
			if err != nil {
				t.Fatal(err)
			}
			r.publish(r.view.State) // since the snapshot of readers is older than the damage
			r.nodes = mst.NewCache()
			err := r.Proof(new(bytes.Buffer), "com.example.note", "a")
			if bytes.Equal(put, sound) != (err == nil) || err != nil && !errors.Is(err, layout.ErrDamaged) {
				t.Errorf("%s of %d bytes, %v", name, len(put), err)
			}
		}
	}
}

func BenchmarkProof(b *testing.B) {
	r := diskRepo(b)
	const n = 20_000
	for i := 0; i < n; i += 200 {
		var writes []Write
		for j := range 200 {
			writes = append(writes, layer(i+j))
		}
		apply(b, r, writes...)
	}
	b.ReportAllocs()
	var car bytes.Buffer
	for b.Loop() {
		w := layer(rand.IntN(n))
		car.Reset()
		if err := r.Proof(&car, w.Collection, w.RKey); err != nil {
			b.Fatal(err)
		}
	}
}
