package repair

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// verify returns the problems, one line each.
func verify(t testing.TB, cfg repo.Config, old ...atcrypto.PublicKey) (Report, []string) {
	t.Helper()
	var lines []string
	report, err := Verify(context.Background(), cfg, old, func(p Problem) { lines = append(lines, p.String()) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if int(report.Problems) != len(lines) {
		t.Errorf("%d problems counted, %d reported", report.Problems, len(lines))
	}
	return report, lines
}

// filled creates a closed repo with some notes, and returns its contents.
func filled(t testing.TB, cfg repo.Config, notes int) model {
	t.Helper()
	r := initRepo(t, cfg, profile())
	m := model{}
	m.apply([]repo.Write{profile()})
	for i := 0; i < notes; i += 100 {
		var writes []repo.Write
		for j := i; j < min(i+100, notes); j++ {
			writes = append(writes, note(repo.Create, fmt.Sprintf("k%05d", j), fmt.Sprint("note ", j)))
		}
		apply(t, r, writes...)
		m.apply(writes)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

// tamper changes the database of a closed repo.
func tamper(t testing.TB, cfg repo.Config, change func(db *store.Store, b store.Batch)) {
	t.Helper()
	full, err := cfg.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s, err := layout.Open(full.Dir, full.Layout())
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	change(s, b)
	if err := s.Commit(b, store.Sync); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// keysUnder lists the keys under a prefix.
func keysUnder(t testing.TB, db store.Reader, prefix string) (keys [][]byte) {
	t.Helper()
	it, err := db.NewIter(store.Range{Start: []byte(prefix), End: layout.End(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		keys = append(keys, append([]byte(nil), it.Key()...))
	}
	return keys
}

func flip(t testing.TB, db store.Reader, b store.Batch, key []byte, at func(size int) int) {
	t.Helper()
	val, err := store.Read(db, key)
	if err != nil {
		t.Fatal(err)
	}
	val[at(len(val))] ^= 4
	b.Set(key, val)
}

func last(size int) int { return size - 1 }

func TestVerifyClean(t *testing.T) {
	t.Parallel()
	for _, notes := range []int{0, 1, 50, 2000} {
		cfg := testConfig(t)
		filled(t, cfg, notes)
		report, lines := verify(t, cfg)
		if len(lines) != 0 || report.Records != int64(notes+1) || report.Nodes == 0 || report.Events < 4 {
			t.Errorf("%d notes: %+v, %q", notes, report, lines)
		}
	}
}

// There are no problems after random histories, also after the event log was
// trimmed.
func TestVerifyHistories(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		cfg := testConfig(t)
		cfg.EventsLimit = 40 << 10
		r := initRepo(t, cfg, profile())
		rng := rand.New(rand.NewPCG(seed, 7))
		m := model{}
		for range 60 {
			var writes []repo.Write
			for range 1 + rng.IntN(20) {
				key := fmt.Sprintf("k%03d", rng.IntN(200))
				_, there := m["com.example.note/"+key]
				w := note(repo.Create, key, fmt.Sprint(rng.Int64()))
				if there {
					w = note([]repo.Action{repo.Update, repo.Delete}[rng.IntN(2)], key, fmt.Sprint(rng.Int64()))
				}
				writes = append(writes, w)
				m.apply(writes)
			}
			apply(t, r, writes...)
			if rng.IntN(10) == 0 {
				if err := r.Notify(context.Background(), repo.Sync); err != nil {
					t.Fatal(err)
				}
				apply(t, r)
			}
		}
		r.Close()
		if report, lines := verify(t, cfg); len(lines) != 0 || int(report.Records) != len(m)+1 {
			t.Errorf("seed %d: %+v, %q", seed, report, lines)
		}
	}
}

// Each kind of damage is reported with its location, and nothing else is.
func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	const path = "com.example.note/k00123"
	nodeOf := func(t *testing.T, s *store.Store, skip int) []byte { return keysUnder(t, s, layout.PrefixNode)[skip] }
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, s *store.Store, b store.Batch)
		want   []string // each in one line
		max    int      // lines
	}{
		{"a bit of a record", func(t *testing.T, s *store.Store, b store.Batch) { flip(t, s, b, layout.RecordKey(path), last) },
			[]string{"record " + path + ": bytes don't match the CID"}, 2},
		{"a bit of a record's digest", func(t *testing.T, s *store.Store, b store.Batch) {
			flip(t, s, b, layout.RecordKey(path), func(int) int { return 3 })
		}, []string{"record " + path + ": bytes don't match the CID"}, 2},
		{"a truncated record", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Set(layout.RecordKey(path), []byte("short"))
		},
			[]string{"record " + path + ": truncated"}, 2},
		{"a missing record", func(t *testing.T, s *store.Store, b store.Batch) { b.Delete(layout.RecordKey(path)) },
			[]string{"record " + path + ": missing", "index " + path + ": an entry for "}, 2},
		{"an extra record", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Set(layout.RecordKey(path+"a"), append(block.DigestOf(block.CIDOf(record("x"))), record("x")...))
		}, []string{"record " + path + "a: not in the tree", "index " + path + "a: no entry for this record"}, 2},
		{"another record", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Set(layout.RecordKey(path), append(block.DigestOf(block.CIDOf(record("x"))), record("x")...))
		}, []string{"record " + path + ": stored with CID " + block.CIDOf(record("x")).String() + ", the tree has " + block.CIDOf(record("note 123")).String(), "index " + path + ": no entry", "index " + path + ": an entry for "}, 3},
		{"a missing index entry", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Delete(layout.IndexKey(block.CIDOf(record("note 123")), path))
		}, []string{"index " + path + ": no entry for this record"}, 1},
		{"an extra index entry", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Set(layout.IndexKey(block.CIDOf(record("x")), path), nil)
		},
			[]string{"index " + path + ": an entry for " + block.CIDOf(record("x")).String()}, 1},
		{"a missing node", func(t *testing.T, s *store.Store, b store.Batch) { b.Delete(nodeOf(t, s, 5)) },
			[]string{": missing"}, 4},
		{"a bit of a node", func(t *testing.T, s *store.Store, b store.Batch) { flip(t, s, b, nodeOf(t, s, 5), last) },
			[]string{": bytes don't match the CID"}, 4},
		{"a leaked node", func(t *testing.T, s *store.Store, b store.Batch) {
			var leak mst.Builder
			leak.Put = func(n block.Block) error { return b.Set(layout.NodeKey(block.DigestOf(n.CID)), n.Data) }
			leak.Add("com.example.note/zzz", block.CIDOf(record("x")))
			leak.Root()
		}, []string{": stored, but not in the tree"}, 1},
		{"a leaked empty node", func(t *testing.T, s *store.Store, b store.Batch) {
			leak := mst.Builder{Put: func(n block.Block) error { return b.Set(layout.NodeKey(block.DigestOf(n.CID)), n.Data) }}
			leak.Root()
		}, []string{": stored, but not in the tree"}, 1},
		{"a bit of the head", func(t *testing.T, s *store.Store, b store.Batch) {
			flip(t, s, b, layout.KeyHead, func(n int) int { return n - 80 })
		}, []string{"head"}, 2},
		{"no head", func(t *testing.T, s *store.Store, b store.Batch) { b.Delete(layout.KeyHead) }, []string{"head: missing"}, 1},
		{"a bit of a frame", func(t *testing.T, s *store.Store, b store.Batch) {
			keys := keysUnder(t, s, layout.PrefixEvent)
			flip(t, s, b, keys[len(keys)-1], func(n int) int { return n / 2 })
		}, []string{"event log "}, 2},
		{"a missing frame", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Delete(keysUnder(t, s, layout.PrefixEvent)[4])
		}, []string{"wrong number of bytes before it"}, 2},
		{"the last frame missing", func(t *testing.T, s *store.Store, b store.Batch) {
			keys := keysUnder(t, s, layout.PrefixEvent)
			b.Delete(keys[len(keys)-1])
		}, []string{"the last event is ", "it ends after ", "the last commit is "}, 3},
		{"a frame that is recorded as dropped", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Set(layout.KeyDropped, keysUnder(t, s, layout.PrefixEvent)[0][2:])
		}, []string{"were dropped"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			filled(t, cfg, 300)
			tamper(t, cfg, func(s *store.Store, b store.Batch) { tc.change(t, s, b) })
			_, lines := verify(t, cfg)
			all := strings.Join(lines, "\n")
			for _, want := range tc.want {
				if !strings.Contains(all, want) {
					t.Errorf("not reported: %q", want)
				}
			}
			if len(lines) > tc.max || t.Failed() {
				t.Errorf("reported:\n%s", all)
			}
		})
	}
}

func TestVerifyKeysAndClock(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	filled(t, cfg, 3)
	behind := cfg
	behind.Now = fixedClock(time.Now().Add(-time.Hour))
	if _, lines := verify(t, behind); len(lines) != 1 || !strings.Contains(lines[0], "the head is 1h0m0s ahead") {
		t.Errorf("an hour behind: %q", lines)
	}
	other := cfg
	other.Key = testKey(t)
	if _, lines := verify(t, other); len(lines) < 2 || !strings.Contains(lines[0], "not signed by this account's key") {
		t.Errorf("another key: %q", lines)
	}
	public, err := cfg.Key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, lines := verify(t, other, public); len(lines) != 1 || !strings.Contains(lines[0], "a key rotation was interrupted") {
		t.Errorf("an old key: %q", lines)
	}
	other.DID = "did:web:other.example.com"
	if _, err := Verify(context.Background(), other, nil, func(Problem) {}, nil); err == nil || !strings.Contains(err.Error(), "it is the repo of "+testDID) {
		t.Errorf("another account: %v", err)
	}
}
