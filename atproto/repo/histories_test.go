package repo

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/internal/store"
)

// TestHistories runs 150 random histories: most with a few records, where
// every write changes the shape of the tree, one with thousands. Under the race
// detector a tenth of them, with few records, is enough: only the writer is concurrent.
func TestHistories(t *testing.T) {
	t.Parallel()
	for seed := range uint64(150) {
		if race.Enabled && seed%10 != 5 {
			continue
		}
		size := uint16(1 + seed%40)
		switch {
		case seed%100 == 99:
			size = 3000
		case seed%10 == 9:
			size = 400
		}
		t.Run(fmt.Sprintf("%d of %d", seed, size), func(t *testing.T) {
			t.Parallel()
			runHistory(t, seed, size)
		})
	}
}

func FuzzHistory(f *testing.F) {
	for seed, size := range map[uint64]uint16{1: 1, 2: 2, 3: 10, 4: 100, 5: 1000} {
		f.Add(seed, size)
	}
	f.Fuzz(runHistory)
}

// runHistory makes the commits of a random history of up to size records: they are
// created, changed, all deleted, and created again. Indigo verifies every commit:
// the root against a new tree, and the frame by inverting it. Sometimes it loads
// the export, and all keys of the database are compared. Every other history
// reopens the repo in between, also after a simulated power failure.
func runHistory(t *testing.T, seed uint64, size uint16) {
	most := 1 + (max(int(size), 1)-1)%3000
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
	verify := func() {
		t.Helper()
		for _, e := range events(t, r, seen) {
			if isCommit(e) {
				prev = verifyFrame(t, cfg, e, prev)
			}
			seen = e.Seq
		}
	}
	const commits = 48
	end := commits
	for i := 0; i < end; i++ {
		writes := h.step(m, most, i, commits)
		res := apply(t, r, writes...)
		m.apply(writes)
		if got, want := r.Head(), m.root(t); got.Commit != res.Commit || got.Rev != res.Rev || got.Data != want {
			t.Fatalf("commit %d: head is %+v, the answer %+v, a new tree %s", i, got, res, want)
		}
		for j, w := range writes {
			if w.Action != Delete && res.CIDs[j] != block.CIDOf(w.Record) {
				t.Fatalf("commit %d: write %d has CID %s", i, j, res.CIDs[j])
			}
		}
		if len(m) == 0 {
			end = max(end, i+5)
		} else if !h.emptied {
			end = max(end, i+2)
		}
		if len(m) == 0 || i%16 == 10 {
			checkStore(t, r, m)
		}
		if seed%2 == 0 || i%12 != 11 {
			continue
		}
		verify()
		if i%24 == 11 {
			fs = fs.CrashClone(vfs.CrashCloneCfg{})
			cfg.FS = fs
		} else if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = openRepo(t, cfg)
		if seed%4 == 1 {
			compact(t, r)
		}
		checkStore(t, r, m)
	}
	verify()
	checkStore(t, r, m)
	compact(t, r)
	checkStore(t, r, m)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// compact compacts all nodes in Pebble. A node that was set twice and deleted once
// would reappear.
func compact(t *testing.T, r *Repo) {
	t.Helper()
	if err := store.Pebble(r.store).Compact(t.Context(), []byte(layout.PrefixNode), layout.End(layout.PrefixNode), false); err != nil {
		t.Fatal(err)
	}
}

// step returns the writes of one call: in the first half of a history records are
// created, in the next quarter they are changed, then all are deleted, the profile
// too, and some are created again.
func (h *history) step(m model, most, i, of int) []Write {
	ops := 1 + h.rng.IntN(max(2, min(MaxWrites*3/4, 4*most/of)))
	switch {
	case i < of/2 && len(m) < most:
		return h.next(m, min(MaxWrites*3/4, ops+2*most/of), 0.85)
	case i < of*3/4 && len(m) > ops+1:
		return h.next(m, ops, 0.5)
	case i >= of*3/4 && !h.emptied:
		return h.deletes(m, max(ops, len(m)/2))
	}
	return h.next(m, ops, 1)
}

// deletes only deletes records, since indigo's verifier rejects a commit that
// replaces all records.
func (h *history) deletes(m model, n int) (writes []Write) {
	paths := slices.Sorted(maps.Keys(m))
	h.rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	for _, path := range paths[:min(n, len(paths), MaxWrites)] {
		collection, rkey, _ := strings.Cut(path, "/")
		writes = append(writes, Write{Action: Delete, Collection: collection, RKey: rkey})
		h.have = slices.DeleteFunc(h.have, func(key string) bool { return key == rkey })
	}
	h.emptied = len(writes) == len(m)
	return writes
}

// More nodes than are kept in memory.
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
		t.Errorf("%d records, want more", got)
	}
}
