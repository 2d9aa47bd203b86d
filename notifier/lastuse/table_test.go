package lastuse

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/state"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

// rig is a table in a store, at a time that a test sets.
type rig struct {
	t     testing.TB
	db    *store.Store
	table *Table
	now   time.Time
	sets  int // rows written
}

func newRig(t testing.TB) *rig {
	t.Helper()
	db, err := store.Open(store.Config{Dir: "state", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &rig{t: t, db: db, table: New("c/w/"), now: noon}
}

func (r *rig) add(facts ...counts.Fact) {
	r.t.Helper()
	c := r.table.Changes(r.db, r.now)
	for i := range facts {
		if err := c.Add(&facts[i]); err != nil {
			r.t.Fatal(err)
		}
	}
	b := r.db.NewIndexedBatch()
	if err := c.Write(b); err != nil {
		r.t.Fatal(err)
	}
	r.sets += int(b.Count())
	if err := r.db.Commit(b, store.NoSync); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) rows(repository string) map[Key]Use {
	r.t.Helper()
	all := map[Key]Use{}
	err := r.table.Repository(r.db, repository, func(k Key, u Use) error { all[k] = u; return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *rig) want(repository string, want map[Key]Use) {
	r.t.Helper()
	if got := r.rows(repository); !maps.Equal(got, want) {
		r.t.Errorf("%s has %v, want %v", repository, got, want)
	}
}

func fact(class counts.Class, tag string, d int, at time.Time) counts.Fact {
	return counts.Fact{Repository: "oss/app", Tag: tag, Digest: digest(d), Class: class, Time: at}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	h := hourOf(noon)
	later := noon.Add(3 * time.Hour)
	one, v1 := OfDigest(digest(1)), OfTag("v1")
	push := fact(counts.Push, "v1", 1, noon)
	for name, c := range map[string]struct {
		facts []counts.Fact
		want  map[Key]Use
	}{
		"push":              {[]counts.Fact{push}, map[Key]Use{one: {h, 0}, v1: {h, 0}}},
		"pull of the tag":   {[]counts.Fact{push, fact(counts.Pull, "v1", 1, later)}, map[Key]Use{one: {h, h + 3}, v1: {h, h + 3}}},
		"pull by digest":    {[]counts.Fact{push, fact(counts.Pull, "", 1, later)}, map[Key]Use{one: {h, h + 3}, v1: {h, 0}}},
		"child":             {[]counts.Fact{fact(counts.Child, "", 1, later)}, map[Key]Use{one: {0, h + 3}}},
		"head":              {[]counts.Fact{fact(counts.Head, "v1", 1, later)}, map[Key]Use{one: {0, h + 3}, v1: {0, h + 3}}},
		"artifact":          {[]counts.Fact{fact(counts.Artifact, "", 1, later)}, map[Key]Use{one: {0, h + 3}}},
		"ignored":           {[]counts.Fact{push, fact(counts.Ignored, "v1", 1, later)}, map[Key]Use{one: {h, 0}, v1: {h, 0}}},
		"earlier":           {[]counts.Fact{fact(counts.Pull, "v1", 1, later), fact(counts.Pull, "v1", 1, noon)}, map[Key]Use{one: {0, h + 3}, v1: {0, h + 3}}},
		"untagged":          {[]counts.Fact{push, {Repository: "oss/app", Tag: "v1", Deleted: true, Time: later}}, map[Key]Use{one: {h, 0}}},
		"deleted":           {[]counts.Fact{push, {Repository: "oss/app", Digest: digest(1), Deleted: true, Time: later}}, map[Key]Use{v1: {h, 0}}},
		"deleted and again": {[]counts.Fact{push, {Repository: "oss/app", Tag: "v1", Deleted: true, Time: later}, fact(counts.Pull, "v1", 1, later)}, map[Key]Use{one: {h, h + 3}, v1: {0, h + 3}}},
		"tag is moved":      {[]counts.Fact{push, fact(counts.Push, "v1", 2, later)}, map[Key]Use{one: {h, 0}, v1: {h + 3, 0}, OfDigest(digest(2)): {h + 3, 0}}},
		"no class":          {[]counts.Fact{fact("", "v1", 1, later)}, map[Key]Use{}},
		"unlisted account":  {[]counts.Fact{{Repository: "oss/app", Digest: digest(1), Class: counts.Pull, Time: later, Unlisted: true}}, map[Key]Use{}},
		"no time":           {[]counts.Fact{fact(counts.Pull, "v1", 1, time.Time{})}, map[Key]Use{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, together := range []bool{true, false} {
				r := newRig(t)
				r.now = later
				if together {
					r.add(c.facts...)
				}
				for i := 0; !together && i < len(c.facts); i++ {
					r.add(c.facts[i])
					r.table.Forget()
				}
				r.want("oss/app", c.want)
				r.want("oss/other", map[Key]Use{})
			}
		})
	}
}

// TestOtherRegistries: what other registries report has no rows.
func TestOtherRegistries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"", "did:web:example.com/oss/app", "private:oss/app"} {
		r.add(counts.Fact{Repository: name, Digest: digest(1), Class: counts.Pull, Time: noon})
		r.want(name, map[Key]Use{})
	}
}

// TestWrites: a row is written once an hour.
func TestWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 600 { // ten hours
		r.now = noon.Add(time.Duration(i) * time.Minute)
		r.add(fact(counts.Pull, "v1", 1, r.now))
	}
	if r.sets != 2*10 {
		t.Errorf("%d rows written, want %d", r.sets, 2*10)
	}
}

// TestClockAhead: times in the future are those of the fold, and are replaced if they were
// stored while the clock was ahead.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := hourOf(noon)
	r.add(fact(counts.Pull, "", 1, noon.Add(1000*time.Hour)))
	r.want("oss/app", map[Key]Use{OfDigest(digest(1)): {0, h}})
	r.now = noon.Add(1000 * time.Hour)
	r.add(fact(counts.Pull, "", 1, r.now))
	r.now = noon.Add(time.Hour)
	r.add(fact(counts.Pull, "", 1, r.now))
	r.want("oss/app", map[Key]Use{OfDigest(digest(1)): {0, h + 1}})
}

func TestLast(t *testing.T) {
	t.Parallel()
	for _, minutes := range []int{0, 1, 59} {
		at := noon.Add(time.Duration(minutes) * time.Minute)
		if last := (Use{Used: hourOf(at)}).Last(); last.Before(at) || last.Sub(at) > Resolution {
			t.Errorf("used at %v, last %v", at, last)
		}
	}
	if last := (Use{}).Last(); !last.IsZero() {
		t.Errorf("never pushed or used, last %v", last)
	}
}

func TestDamagedRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(fact(counts.Pull, "v1", 1, noon))
	hash := hashRepository("oss/app")
	for _, val := range []string{"", "\xff", "\x01", "\x01\xff"} {
		k := rowKeyOf(hash, OfTag("v1"))
		if err := r.db.Set(r.table.key(k), []byte(val), store.NoSync); err != nil {
			t.Fatal(err)
		}
		if err := r.table.Repository(r.db, "oss/app", func(Key, Use) error { return nil }); err == nil {
			t.Errorf("value %x is accepted", val)
		}
	}
}

// pushAll pushes manifests with a tag each, 100 in a repository, in the order of no key.
func (r *rig) pushAll(manifests int) {
	r.t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	r.now = noon.Add(10_000 * time.Hour)
	for first := 0; first < manifests; first += 1000 {
		facts := make([]counts.Fact, 0, 1000)
		for i := first; i < min(first+1000, manifests); i++ {
			f := fact(counts.Push, fmt.Sprint("v", i), i, noon.Add(time.Duration(rng.IntN(10_000))*time.Hour))
			f.Repository = fmt.Sprint("team/application-", i/100)
			facts = append(facts, f)
		}
		r.add(facts...)
	}
}

// TestCost: a manifest with a tag has rows of 50 bytes, and the rows in memory do not grow with
// their number. BenchmarkOnDisk measures a million.
func TestCost(t *testing.T) {
	t.Parallel()
	const manifests, most = maxRecent, 60 // which fill the memory twice
	r := newRig(t)
	r.pushAll(manifests)
	bytes := 0
	err := store.Scan(r.db, []byte(r.table.prefix), func(key, val []byte) error { bytes += len(key) + len(val); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if bytes > most*manifests || bytes < manifests {
		t.Errorf("a manifest with a tag takes %d bytes, want %d at most", bytes/manifests, most)
	}
	if n := r.table.recent.Len(); n > maxRecent || n < maxRecent/2 {
		t.Errorf("%d rows are in memory, want %d at most", n, maxRecent)
	}
}

// BenchmarkOnDisk measures the files of a million manifests with a tag each, in a database with the
// options of the state.
func BenchmarkOnDisk(b *testing.B) {
	const manifests = 1_000_000
	for b.Loop() {
		dir := b.TempDir()
		db, err := state.Open(state.Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		r := &rig{t: b, db: db, table: New("c/w/")}
		r.pushAll(manifests)
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		var total int64
		err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			total += info.Size()
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(total)/1e6, "MB")
		b.ReportMetric(float64(r.table.recent.Len()), "rows-in-memory")
	}
}

func BenchmarkChanges(b *testing.B) {
	r := newRig(b)
	facts := make([]counts.Fact, 500)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range facts {
		n := rng.IntN(30)
		facts[i] = fact(counts.Pull, fmt.Sprint("v", n), n, noon)
		facts[i].Repository = fmt.Sprint("oss/app-", n%5)
	}
	r.add(facts...)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r.add(facts...)
		n += len(facts)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/fact")
}
