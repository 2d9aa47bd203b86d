package counter

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/state"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// clock is a clock that a test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// replica is a registry: a folder with a journal and a state, and the counts that are
// expected of it.
type replica struct {
	t       testing.TB
	journal string
	fs      *vfs.MemFS
	db      *store.Store
	cfg     Config
	c       *Counter
	seq     uint64 // the last event that was folded
	last    uint64 // the last event in the journal when it is opened
	want    map[string]map[counts.Class]int64
}

func newReplica(t testing.TB, journal string, client redis.UniversalClient) *replica {
	r := &replica{t: t, journal: journal, fs: vfs.NewCrashableMem(), cfg: Config{Redis: inRedis(client)}, want: map[string]map[counts.Class]int64{}}
	r.open()
	return r
}

func (r *replica) open() {
	r.t.Helper()
	r.last = max(r.last, r.seq)
	r.cfg.LastEvent = func(stream uint8) uint64 { return map[uint8]uint64{1: r.last}[stream] }
	r.db = openState(r.t, r.fs)
	r.c = open(r.t, r.db, r.cfg)
	db := r.db
	r.t.Cleanup(func() { db.Close() })
}

func (r *replica) reopen() {
	r.t.Helper()
	if err := r.db.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

// clone returns a copy of the folder, which is not open.
func (r *replica) clone() *replica {
	return &replica{
		t: r.t, journal: r.journal, cfg: r.cfg, seq: r.seq, last: r.last,
		fs:   r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}),
		want: map[string]map[counts.Class]int64{},
	}
}

func (r *replica) fold(facts ...counts.Fact) {
	r.t.Helper()
	r.replay(facts...)
	for _, f := range facts {
		if r.want[f.Repository] == nil {
			r.want[f.Repository] = map[counts.Class]int64{}
		}
		r.want[f.Repository][f.Class]++
	}
}

// replay folds facts that must not be counted again.
func (r *replica) replay(facts ...counts.Fact) {
	r.t.Helper()
	for i := range facts {
		r.seq++
		facts[i].Seq = r.seq
	}
	if err := r.c.Fold(r.journal, 1, r.seq, facts, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) publish() int {
	r.t.Helper()
	n, err := r.c.Publish(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func openState(t testing.TB, fs vfs.FS) *store.Store {
	t.Helper()
	db, err := state.Open(state.Config{Dir: "state", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func open(t testing.TB, db *store.Store, cfg Config) *Counter {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = at(noon)
	}
	c, err := Open(db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inRedis returns the counts of the default installation; nil without a client.
func inRedis(client redis.UniversalClient) *rediscounts.DB {
	if client == nil {
		return nil
	}
	return rediscounts.New(client, "")
}

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func newClassifier(t testing.TB, cfg classify.Config) *classify.Classifier {
	t.Helper()
	r, err := classify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func pulls(n int) []counts.Fact {
	list := make([]counts.Fact, n)
	for i := range list {
		list[i] = counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon}
	}
	return list
}

// randomFacts returns facts of random repositories and tags.
func randomFacts(rnd *rand.Rand, n int) []counts.Fact {
	classes := []counts.Class{counts.Pull, counts.Child, counts.Head, counts.Artifact, counts.Ignored}
	list := make([]counts.Fact, n)
	for i := range list {
		list[i] = counts.Fact{
			Repository: fmt.Sprintf("team/app-%d", rnd.IntN(40)),
			Tag:        fmt.Sprintf("v%d", rnd.IntN(5)),
			Class:      classes[rnd.IntN(len(classes))],
			Time:       noon.AddDate(0, 0, -rnd.IntN(3)),
		}
	}
	return list
}

// checkSum compares the sum in Redis with the expected counts of the replicas: the totals, and
// the sums of tags and of days.
func checkSum(t testing.TB, client redis.UniversalClient, replicas ...*replica) {
	t.Helper()
	want := map[string]map[counts.Class]int64{}
	for _, r := range replicas {
		for name, byClass := range r.want {
			if want[name] == nil {
				want[name] = map[counts.Class]int64{}
			}
			for class, n := range byClass {
				want[name][class] += n
			}
		}
	}
	checkSource(t, &rediscounts.Sum{DB: inRedis(client), Now: at(noon)}, want)
}

func checkSource(t testing.TB, s counts.Source, want map[string]map[counts.Class]int64) {
	t.Helper()
	list, err := s.Repositories(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[counts.Class]int64{}
	for _, totals := range list {
		got[totals.Name] = totals.Counts
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("totals:\n got %v\nwant %v", got, want)
	}
	for name := range want {
		totals, tags, ok, err := s.Repository(t.Context(), name)
		if err != nil || !ok {
			t.Fatalf("Repository(%s) = %v, %v", name, ok, err)
		}
		days, err := s.Daily(t.Context(), name, 10)
		if err != nil {
			t.Fatal(err)
		}
		var dayCounts []map[counts.Class]int64
		for _, d := range days {
			dayCounts = append(dayCounts, d.Counts)
		}
		for what, sum := range map[string]map[counts.Class]int64{
			"total": totals.Counts, "tags": addUp(maps.Values(tags)), "days": addUp(values(dayCounts)),
		} {
			if !maps.Equal(sum, want[name]) {
				t.Fatalf("%s of %s = %v, want %v", what, name, sum, want[name])
			}
		}
	}
}

func values[T any](list []T) func(func(T) bool) {
	return func(yield func(T) bool) {
		for _, v := range list {
			if !yield(v) {
				return
			}
		}
	}
}

func addUp(list func(func(map[counts.Class]int64) bool)) map[counts.Class]int64 {
	sum := map[counts.Class]int64{}
	for byClass := range list {
		for class, n := range byClass {
			sum[class] += n
		}
	}
	return sum
}

// keysIn lists the keys that match a pattern.
func keysIn(t testing.TB, client redis.UniversalClient, pattern string) []string {
	t.Helper()
	keys, err := client.Keys(t.Context(), pattern).Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func idsIn(t testing.TB, client redis.UniversalClient) []string {
	t.Helper()
	ids, err := client.HKeys(t.Context(), rediscounts.NewKeys("").IDs()).Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

// storedBytes returns the size of all keys and values of the counter.
func storedBytes(t testing.TB, r *replica) (bytes int) {
	t.Helper()
	if err := store.Scan(r.db, []byte("c/"), func(key, val []byte) error { bytes += len(key) + len(val); return nil }); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// cursor returns the last folded event of a journal's stream.
func cursor(c *Counter, journal string, stream uint8) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cursors[cursorName(journal, stream)]
}
