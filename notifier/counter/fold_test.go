package counter

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
)

func TestFold(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	r.fold(randomFacts(rand.New(rand.NewPCG(10, 10)), 1000)...)
	checkSource(t, r.c, r.want)
	r.fold(randomFacts(rand.New(rand.NewPCG(11, 11)), 1000)...)
	r.reopen()
	checkSource(t, r.c, r.want)
	if got := cursor(r.c, "aaaa", 1); got != 2000 {
		t.Errorf("the cursor is %d, want 2000", got)
	}
	if got := cursor(r.c, "aaaa", 0); got != 0 {
		t.Errorf("the cursor of the other stream is %d, want 0", got)
	}
	if got := cursor(r.c, "bbbb", 1); got != 0 {
		t.Errorf("the cursor of another journal is %d, want 0", got)
	}
}

func TestFoldTwice(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	pull := []counts.Fact{{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon}}
	r.fold(pull...)
	r.fold(pull...)
	for _, upTo := range []uint64{0, 1, 2} {
		err := r.c.Fold("aaaa", 1, upTo, pull, func(store.Batch) error { t.Error("also was called"); return nil })
		if err != nil {
			t.Error(err)
		}
	}
	checkSource(t, r.c, r.want)
}

// TestFoldAfterNewJournalID: a journal with a new id adds to the same counts.
func TestFoldAfterNewJournalID(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	r.fold(randomFacts(rand.New(rand.NewPCG(12, 12)), 300)...)
	r.journal = "bbbb"
	r.fold(randomFacts(rand.New(rand.NewPCG(13, 13)), 300)...)
	checkSource(t, r.c, r.want)
}

func TestFoldWithAlso(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	own := errors.New("no")
	fact := []counts.Fact{{Repository: "x", Tag: "v1", Digest: digest(1), Class: counts.Push, Time: noon, Children: []string{digest(2)}}}
	err := r.c.Fold("aaaa", 0, 5, fact, func(store.Batch) error { return own })
	if !errors.Is(err, own) {
		t.Fatalf("Fold = %v, want the caller's error", err)
	}
	if got := cursor(r.c, "aaaa", 0); got != 0 {
		t.Errorf("the cursor is %d after a failed Fold, want 0", got)
	}
	checkSource(t, r.c, map[string]map[counts.Class]int64{})
	if keys, _ := r.c.Children(); len(keys) != 0 {
		t.Errorf("a failed Fold stored %v", keys)
	}
	err = r.c.Fold("aaaa", 0, 5, fact, func(b store.Batch) error { return b.Set([]byte("p/1"), []byte("row")) })
	if err != nil {
		t.Fatal(err)
	}
	r.reopen()
	val, closer, err := r.db.Get([]byte("p/1"))
	if err != nil || string(val) != "row" {
		t.Fatalf("the caller's key is %q, %v", val, err)
	}
	closer.Close()
	checkSource(t, r.c, map[string]map[counts.Class]int64{"x": {counts.Push: 1}})
}

func TestFoldRefusesBadJournals(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	for _, id := range []string{"", "a\x00b", "a/b"} {
		if err := r.c.Fold(id, 0, 1, nil, nil); err == nil {
			t.Errorf("journal id %q is accepted", id)
		}
	}
}

func TestRetag(t *testing.T) {
	t.Parallel()
	push := func(repository, tag string, d int) counts.Fact {
		return counts.Fact{Repository: repository, Tag: tag, Digest: digest(d), Class: counts.Push, Time: noon}
	}
	untag := func(tag string) counts.Fact { return counts.Fact{Repository: "x", Tag: tag, Deleted: true, Time: noon} }
	for name, c := range map[string]struct {
		facts []counts.Fact
		want  int64
	}{
		"the other tag is deleted":           {[]counts.Fact{push("x", "v1", 1), untag("v1"), push("x", "v2", 1)}, 0},
		"the other tag has moved":            {[]counts.Fact{push("x", "v1", 1), push("x", "v1", 2), push("x", "v2", 1)}, 0},
		"the other tag has moved back":       {[]counts.Fact{push("x", "v1", 1), push("x", "v1", 2), push("x", "v1", 1), push("x", "v2", 1)}, 1},
		"one of two is deleted":              {[]counts.Fact{push("x", "v1", 1), push("x", "v2", 1), untag("v1"), push("x", "v3", 1)}, 2},
		"the other is deleted and pushed":    {[]counts.Fact{push("x", "v1", 1), untag("v1"), push("x", "v1", 1), push("x", "v2", 1)}, 1},
		"a tag of another digest is deleted": {[]counts.Fact{push("x", "v1", 1), push("x", "v0", 2), untag("v0"), push("x", "v2", 1)}, 1},
		"one tag":                            {[]counts.Fact{push("x", "v1", 1)}, 0},
		"the same tag again":                 {[]counts.Fact{push("x", "v1", 1), push("x", "v1", 1)}, 0},
		"a second tag":                       {[]counts.Fact{push("x", "v1", 1), push("x", "latest", 1)}, 1},
		"a tag with the same prefix":         {[]counts.Fact{push("x", "v1", 1), push("x", "v1.1", 1)}, 1},
		"and back":                           {[]counts.Fact{push("x", "v1.1", 1), push("x", "v1", 1), push("x", "v1.1", 1)}, 2},
		"another digest":                     {[]counts.Fact{push("x", "v1", 1), push("x", "latest", 2)}, 0},
		"another repository":                 {[]counts.Fact{push("y", "v1", 1), push("x", "latest", 1)}, 0},
		"first without a tag":                {[]counts.Fact{push("x", "", 1), push("x", "v1", 1)}, 0},
		"then without a tag":                 {[]counts.Fact{push("x", "v1", 1), push("x", "", 1)}, 0},
	} {
		for _, together := range []bool{true, false} {
			r := newReplica(t, "aaaa", nil)
			if together {
				r.fold(c.facts...)
			} else {
				for _, f := range c.facts {
					r.fold(f)
					r.reopen()
				}
			}
			got, tags, _, err := r.c.Repository(t.Context(), "x")
			if err != nil || got.Counts[counts.Retag] != c.want {
				t.Errorf("%s, together %v: %d retags, want %d (%v)", name, together, got.Counts[counts.Retag], c.want, err)
			}
			if n := addUp(maps.Values(tags))[counts.Retag]; n != c.want {
				t.Errorf("%s, together %v: %d retags by tag, want %d", name, together, n, c.want)
			}
		}
	}
}

func TestUnknownClass(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	err := r.c.Fold("aaaa", 1, 3, []counts.Fact{
		{Repository: "x", Tag: "v1", Class: "stare", Time: noon}, {Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon}, {Class: counts.Pull},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSource(t, r.c, map[string]map[counts.Class]int64{"x": {counts.Pull: 1}})
}

func TestDays(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	east := time.FixedZone("east", 14*3600)
	for _, at := range []time.Time{
		noon, noon.AddDate(0, 0, -1), noon.AddDate(0, 0, 1-counts.KeepDays), noon.AddDate(0, 0, -counts.KeepDays),
		time.Date(2026, 3, 4, 1, 0, 0, 0, east), // still the third in UTC
		{},
	} {
		r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: at})
	}
	days, err := r.c.Daily(t.Context(), "x", 3)
	if err != nil || len(days) != 3 {
		t.Fatal(days, err)
	}
	for i, want := range []counts.Day{
		{Date: "2026-03-02", Counts: map[counts.Class]int64{}}, {Date: "2026-03-03", Counts: map[counts.Class]int64{counts.Pull: 2}}, {Date: "2026-03-04", Counts: map[counts.Class]int64{counts.Pull: 1}},
	} {
		if days[i].Date != want.Date || !maps.Equal(days[i].Counts, want.Counts) {
			t.Errorf("day %d = %v, want %v", i, days[i], want)
		}
	}
	count := func() (n int64) {
		days, err := r.c.Daily(t.Context(), "x", counts.KeepDays+100)
		if err != nil || len(days) != counts.KeepDays {
			t.Fatalf("%d days, %v", len(days), err)
		}
		for _, d := range days {
			n += d.Counts[counts.Pull]
		}
		return n
	}
	if got := count(); got != 4 {
		t.Errorf("%d pulls in all days, want 4: one is too old, and one has no time", got)
	}
	if got, tags, _, _ := r.c.Repository(t.Context(), "x"); got.Counts[counts.Pull] != 6 || tags["v1"][counts.Pull] != 6 {
		t.Errorf("totals %v, tags %v; want 6 pulls in both", got.Counts, tags)
	}
}

func TestChildrenAfterRestart(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	db := openState(t, fs)
	c := open(t, db, Config{MaxChildren: 8})
	child := func(n int) counts.Fact { return counts.Fact{Repository: "x", Children: []string{digest(n)}} }
	for i := range 21 {
		if err := c.Fold("aaaa", 1, uint64(2*i+1), []counts.Fact{child(i), child(i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	db = openState(t, fs)
	defer db.Close()
	c = open(t, db, Config{MaxChildren: 8})
	keys, err := c.Children()
	if err != nil {
		t.Fatal(err)
	}
	var want []classify.IndexEntry
	for i := 16; i < 21; i++ {
		want = append(want, classify.IndexEntry{Index: classify.KeyOf("x", ""), Child: classify.KeyOf("x", digest(i))})
	}
	slices.SortFunc(want[:4], func(a, b classify.IndexEntry) int { return cmp.Compare(a.Child, b.Child) }) // within a generation, the order is that of the keys
	if !slices.Equal(keys, want) {
		t.Errorf("children %v, want %v", keys, want)
	}
	if got, _ := c.Repositories(t.Context()); len(got) != 0 {
		t.Errorf("an index that was not pulled is counted: %v", got)
	}
	rule := newClassifier(t, classify.Config{MaxChildren: 8})
	rule.Learn(keys...)
	if class, _, _ := rule.Class(classify.Request{Method: "GET", Repository: "x", Digest: digest(18)}); class != counts.Child {
		t.Errorf("class %s after a restart, want child", class)
	}
}

// TestIndexDeletedAfterRestart: index entries are the same after a restart, including those
// that an earlier version stored.
func TestIndexDeletedAfterRestart(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	db := openState(t, fs)
	rule := newClassifier(t, classify.Config{})
	c := open(t, db, Config{Learn: rule.Learn})
	signature := "sha256-" + strings.Repeat("0a", 32)
	facts := []counts.Fact{
		{Repository: "x", Digest: digest(1), Class: counts.Push, Time: noon, Children: []string{digest(11), digest(12)}},
		{Repository: "x", Digest: digest(2), Class: counts.Push, Time: noon, Children: []string{digest(12)}},
		{Repository: "x", Digest: digest(3), Class: counts.Push, Time: noon, Supporting: true},
		{Repository: "x", Digest: digest(4), Class: counts.Artifact, Tag: signature, Time: noon},
		{Repository: "x", Digest: digest(1), Deleted: true},
		{Repository: "x", Digest: digest(7), Class: counts.Push, Time: noon, Children: []string{digest(17)}},
		{Repository: "x", Digest: digest(7), Deleted: true},
		{Repository: "x", Digest: digest(7), Class: counts.Push, Time: noon, Children: []string{digest(17)}},
	}
	if err := c.Fold("aaaa", 1, 8, facts, nil); err != nil {
		t.Fatal(err)
	}
	old := binary.BigEndian.AppendUint64([]byte("c/k/\x00\x00\x00\x00"), uint64(classify.KeyOf("x", digest(20))))
	if err := db.Set(old, nil, store.NoSync); err != nil {
		t.Fatal(err)
	}
	rule.Learn(classify.IndexEntry{Child: classify.KeyOf("x", digest(20))})
	check := func(when string) {
		t.Helper()
		for n, want := range map[int]counts.Class{11: counts.Pull, 12: counts.Child, 3: counts.Artifact, 4: counts.Artifact, 17: counts.Child, 20: counts.Child, 21: counts.Pull} {
			if class, _, _ := rule.Class(classify.Request{Method: "GET", Repository: "x", Digest: digest(n), Kind: "image"}); class != want {
				t.Errorf("%s: %d is %s, want %s", when, n, class, want)
			}
		}
	}
	check("before")
	db.Close()
	db = openState(t, fs)
	defer db.Close()
	c = open(t, db, Config{})
	all, err := c.Children()
	if err != nil {
		t.Fatal(err)
	}
	rule = newClassifier(t, classify.Config{})
	rule.Learn(all...)
	check("after a restart")
}

func TestConcurrentFolds(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	var wg sync.WaitGroup
	for stream := range uint8(4) {
		wg.Go(func() {
			for i := range uint64(50) {
				if err := r.c.Fold("aaaa", stream, i+1, []counts.Fact{{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon}}, nil); err != nil {
					t.Error(err)
				}
				r.c.Repositories(t.Context())
			}
		})
	}
	wg.Wait()
	checkSource(t, r.c, map[string]map[counts.Class]int64{"x": {counts.Pull: 200}})
}

func BenchmarkFold(b *testing.B) {
	db := openState(b, vfs.NewMem())
	defer db.Close()
	c := open(b, db, Config{})
	facts := randomFacts(rand.New(rand.NewPCG(14, 14)), 500)
	seq := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seq += uint64(len(facts))
		if err := c.Fold("aaaa", 1, seq, facts, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(seq), "ns/fact")
}

// TestOpenWritesNothing: Open does not write, since a registry has to start on a full disk.
func TestOpenWritesNothing(t *testing.T) {
	t.Parallel()
	for _, client := range []redis.UniversalClient{nil, redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})} {
		r := newReplica(t, "aaaa", nil)
		r.fold(pulls(3)...)
		r.cfg.Redis, r.cfg.AskTimeout = inRedis(client), time.Millisecond
		r.reopen()
		r.fold(pulls(3)...)
		before := storedBytes(t, r)
		for range 3 {
			r.reopen()
		}
		if got := storedBytes(t, r); got != before {
			t.Errorf("%d bytes after a start, %d before", got, before)
		}
		checkSource(t, r.c, r.want)
	}
}
