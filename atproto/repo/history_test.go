package repo

import (
	"fmt"
	"math/rand/v2"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestHistories makes random commits and has every one of them judged by
// indigo: the root against a tree built anew, the frame by undoing it, the
// export by loading it, the database key by key. Every other history is
// reopened now and then, once from what a power cut would have left.
func TestHistories(t *testing.T) {
	t.Parallel()
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			cfg := testConfig(t)
			fs := vfs.NewCrashableMem()
			cfg.FS = fs
			m := model{}
			first := []Write{profile()}
			m.apply(first)
			r := initRepo(t, cfg, first...)
			h := history{rng: rng}
			var prev *comatproto.SyncSubscribeRepos_Commit
			seen := uint64(0)
			for i := range 120 {
				fill := 0.75
				if i%40 >= 25 {
					fill = 0.1 // shrink it, to the profile alone
				}
				writes := h.next(m, 1+rng.IntN(12), fill)
				res := apply(t, r, writes...)
				m.apply(writes)
				if got := r.Head(); got.Commit != res.Commit || got.Rev != res.Rev || got.Data != m.root(t) {
					t.Fatalf("commit %d: head is %+v, the answer %+v, a tree built anew %s", i, got, res, m.root(t))
				}
				for j, w := range writes {
					if w.Action != Delete && res.CIDs[j] != CIDOf(w.Record) {
						t.Fatalf("commit %d: write %d has CID %s", i, j, res.CIDs[j])
					}
				}
				if i%20 == 10 {
					checkStore(t, r, m)
				}
				if seed%2 == 1 && i%25 == 24 {
					for _, e := range events(t, r, seen) {
						if isCommit(e) {
							prev = verifyFrame(t, cfg, e, prev)
						}
						seen = e.Seq
					}
					if i%50 == 24 {
						fs = fs.CrashClone(vfs.CrashCloneCfg{})
						cfg.FS = fs
					} else if err := r.Close(); err != nil {
						t.Fatal(err)
					}
					r = openRepo(t, cfg)
					checkStore(t, r, m)
				}
			}
			for _, e := range events(t, r, seen) {
				if isCommit(e) {
					prev = verifyFrame(t, cfg, e, prev)
				}
			}
			checkStore(t, r, m)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			checkStore(t, openRepo(t, cfg), m)
		})
	}
}

func isCommit(e Event) bool { return string(e.Frame[4:11]) == "#commit" }

// TestManyNodes goes past what is kept in memory.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := model{}
	first := []Write{profile()}
	m.apply(first)
	r := initRepo(t, cfg, first...)
	h := history{rng: rand.New(rand.NewPCG(7, 7))}
	var prev *comatproto.SyncSubscribeRepos_Commit
	for range 40 {
		writes := h.next(m, 150, 0.9)
		apply(t, r, writes...)
		m.apply(writes)
	}
	for _, e := range events(t, r, 0) {
		if isCommit(e) {
			prev = verifyFrame(t, cfg, e, prev)
		}
	}
	checkStore(t, r, m)
	if got := len(m); got < 3000 {
		t.Errorf("only %d records", got)
	}
}
