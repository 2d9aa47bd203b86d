package repo

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/internal/store"
)

// verify returns what is wrong, a line each.
func verify(t testing.TB, cfg Config, old ...atcrypto.PublicKey) (Report, []string) {
	t.Helper()
	var lines []string
	report, err := Verify(context.Background(), cfg, old, func(p Problem) { lines = append(lines, p.String()) })
	if err != nil {
		t.Fatal(err)
	}
	if int(report.Problems) != len(lines) {
		t.Errorf("%d problems counted, %d told", report.Problems, len(lines))
	}
	return report, lines
}

// filled makes a closed repository of some notes, and what is in it.
func filled(t testing.TB, cfg Config, notes int) model {
	t.Helper()
	r := initRepo(t, cfg, profile())
	m := model{}
	m.apply([]Write{profile()})
	for i := 0; i < notes; i += 100 {
		var writes []Write
		for j := i; j < min(i+100, notes); j++ {
			writes = append(writes, note(Create, fmt.Sprintf("k%05d", j), fmt.Sprint("note ", j)))
		}
		apply(t, r, writes...)
		m.apply(writes)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

// tamper changes the database behind the repository's back.
func tamper(t testing.TB, cfg Config, change func(db *store.Store, b *pebble.Batch)) {
	t.Helper()
	full, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStore(full, full.Dir)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	change(s, b)
	if err := s.Commit(b, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// keysUnder lists the keys of a prefix.
func keysUnder(t testing.TB, db pebble.Reader, prefix string) (keys [][]byte) {
	t.Helper()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: after(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		keys = append(keys, append([]byte(nil), it.Key()...))
	}
	return keys
}

func flip(t testing.TB, db pebble.Reader, b *pebble.Batch, key []byte, at func(size int) int) {
	t.Helper()
	val, err := store.Read(db, key)
	if err != nil {
		t.Fatal(err)
	}
	val[at(len(val))] ^= 4
	b.Set(key, val, nil)
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

// Whatever a history leaves behind is clean, and the events that a shorter log
// drops are not missed.
func TestVerifyHistories(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		cfg := testConfig(t)
		cfg.EventsLimit = 40 << 10
		r := initRepo(t, cfg, profile())
		rng := rand.New(rand.NewPCG(seed, 7))
		m := model{}
		for range 60 {
			var writes []Write
			for range 1 + rng.IntN(20) {
				key := fmt.Sprintf("k%03d", rng.IntN(200))
				_, there := m["com.example.note/"+key]
				w := note(Create, key, fmt.Sprint(rng.Int64()))
				if there {
					w = note([]Action{Update, Delete}[rng.IntN(2)], key, fmt.Sprint(rng.Int64()))
				}
				writes = append(writes, w)
				m.apply(writes)
			}
			apply(t, r, writes...)
			if rng.IntN(10) == 0 {
				if _, err := r.Renew(context.Background(), Sync); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.Close()
		if report, lines := verify(t, cfg); len(lines) != 0 || int(report.Records) != len(m)+1 {
			t.Errorf("seed %d: %+v, %q", seed, report, lines)
		}
	}
}

// Each kind of damage is named, with its place, and nothing else is.
func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	const path = "com.example.note/k00123"
	nodeOf := func(t *testing.T, s *store.Store, skip int) []byte { return keysUnder(t, s, prefixNode)[skip] }
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, s *store.Store, b *pebble.Batch)
		want   []string // each in one line
		max    int      // lines
	}{
		{"a bit of a record", func(t *testing.T, s *store.Store, b *pebble.Batch) { flip(t, s, b, recordKey(path), last) },
			[]string{"record " + path + ": its bytes are others than its CID says"}, 2},
		{"a bit of a record's digest", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			flip(t, s, b, recordKey(path), func(int) int { return 3 })
		}, []string{"record " + path + ": its bytes are others than its CID says"}, 2},
		{"a record cut short", func(t *testing.T, s *store.Store, b *pebble.Batch) { b.Set(recordKey(path), []byte("short"), nil) },
			[]string{"record " + path + ": it is cut short"}, 2},
		{"a record gone", func(t *testing.T, s *store.Store, b *pebble.Batch) { b.Delete(recordKey(path), nil) },
			[]string{"record " + path + ": it is missing", "index " + path + ": it has "}, 2},
		{"a record too many", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Set(recordKey(path+"a"), append(digestOf(CIDOf(record("x"))), record("x")...), nil)
		}, []string{"record " + path + "a: it is not in the tree", "index " + path + "a: it lacks this record"}, 2},
		{"another record", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Set(recordKey(path), append(digestOf(CIDOf(record("x"))), record("x")...), nil)
		}, []string{"record " + path + ": it is " + CIDOf(record("x")).String() + ", and the tree says " + CIDOf(record("note 123")).String(), "index " + path + ": it lacks", "index " + path + ": it has "}, 3},
		{"an index entry gone", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Delete(indexKey(CIDOf(record("note 123")), path), nil)
		}, []string{"index " + path + ": it lacks this record"}, 1},
		{"an index entry too many", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Set(indexKey(CIDOf(record("x")), path), nil, nil)
		},
			[]string{"index " + path + ": it has " + CIDOf(record("x")).String() + " there"}, 1},
		{"a node gone", func(t *testing.T, s *store.Store, b *pebble.Batch) { b.Delete(nodeOf(t, s, 5), nil) },
			[]string{": it is missing"}, 4},
		{"a bit of a node", func(t *testing.T, s *store.Store, b *pebble.Batch) { flip(t, s, b, nodeOf(t, s, 5), last) },
			[]string{": its bytes are others than its CID says"}, 4},
		{"a node leaked", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			var leak builder
			leak.put = func(c cid.Cid, data []byte) error { return b.Set(nodeKey(c), data, nil) }
			leak.add("com.example.note/zzz", CIDOf(record("x")))
			leak.root()
		}, []string{": it is stored, and not in the tree"}, 1},
		{"an empty node leaked", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			leak := builder{put: func(c cid.Cid, data []byte) error { return b.Set(nodeKey(c), data, nil) }}
			leak.root()
		}, []string{": it is stored, and not in the tree"}, 1},
		{"a bit of the head", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			flip(t, s, b, keyHead, func(n int) int { return n - 80 })
		}, []string{"head"}, 2},
		{"no head", func(t *testing.T, s *store.Store, b *pebble.Batch) { b.Delete(keyHead, nil) }, []string{"head: it is missing"}, 1},
		{"a bit of a frame", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			keys := keysUnder(t, s, prefixEvent)
			flip(t, s, b, keys[len(keys)-1], func(n int) int { return n / 2 })
		}, []string{"event log "}, 2},
		{"a frame gone", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Delete(keysUnder(t, s, prefixEvent)[4], nil)
		}, []string{"the bytes before it are counted wrong"}, 2},
		{"the last frame gone", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			keys := keysUnder(t, s, prefixEvent)
			b.Delete(keys[len(keys)-1], nil)
		}, []string{"its last event is ", "it ends after ", "its last commit is "}, 3},
		{"a frame that is said to be lost", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Set(keyLost, keysUnder(t, s, prefixEvent)[0][2:], nil)
		}, []string{"and " /* … is said to be lost */}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			filled(t, cfg, 300)
			tamper(t, cfg, func(s *store.Store, b *pebble.Batch) { tc.change(t, s, b) })
			_, lines := verify(t, cfg)
			all := strings.Join(lines, "\n")
			for _, want := range tc.want {
				if !strings.Contains(all, want) {
					t.Errorf("not told: %q", want)
				}
			}
			if len(lines) > tc.max || t.Failed() {
				t.Errorf("told:\n%s", all)
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
	if _, lines := verify(t, behind); len(lines) != 1 || !strings.Contains(lines[0], "the head is dated 1h0m0s ahead") {
		t.Errorf("an hour behind: %q", lines)
	}
	other := cfg
	other.Key = testKey(t)
	if _, lines := verify(t, other); len(lines) < 2 || !strings.Contains(lines[0], "it is not signed by this account's key") {
		t.Errorf("another key: %q", lines)
	}
	public, err := cfg.Key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, lines := verify(t, other, public); len(lines) != 1 || !strings.Contains(lines[0], "a change of keys was cut short") {
		t.Errorf("an older key: %q", lines)
	}
	other.DID = "did:web:other.example.com"
	if _, err := Verify(context.Background(), other, nil, func(Problem) {}); err == nil || !strings.Contains(err.Error(), "it is the repository of "+testDID) {
		t.Errorf("another account: %v", err)
	}
}

// The builder makes the tree that mst makes, for every size.
func TestBuilder(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 3, 10, 100, 3000} {
		m := model{}
		for i := range n {
			m[fmt.Sprintf("com.example.note/%06d", i*7919%1000003)] = record(fmt.Sprint(i))
		}
		if got, want := built(t, m), m.root(t); got != want {
			t.Errorf("%d keys: root %s, want %s", n, got, want)
		}
	}
	b := builder{put: func(cid.Cid, []byte) error { return nil }}
	b.add("b", CIDOf(nil))
	if err := b.add("a", CIDOf(nil)); err == nil {
		t.Error("keys out of order are taken")
	}
}

func built(t testing.TB, m model) cid.Cid {
	t.Helper()
	b := builder{put: func(cid.Cid, []byte) error { return nil }}
	for _, path := range slices.Sorted(maps.Keys(m)) {
		if err := b.add(path, CIDOf(m[path])); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
