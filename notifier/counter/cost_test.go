package counter

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// foldAll folds facts in batches of the size that a backlog has.
func (r *replica) foldAll(facts []counts.Fact) {
	r.t.Helper()
	for batch := range slices.Chunk(facts, 256) {
		r.fold(batch...)
	}
}

// countsMemory returns the memory in bytes of what is in Redis, without the last uses.
func countsMemory(server *redistest.Server) int64 {
	return server.Memory("*") - server.Memory("*:uses*")
}

// TestCostOfTags measures a tag that is pushed once, and one that is also pulled
// (docs/redis.md).
func TestCostOfTags(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	const tags = 20_000
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	facts := make([]counts.Fact, tags)
	for i := range facts {
		facts[i] = counts.Fact{Repository: "team/application", Tag: fmt.Sprintf("v1.%d.%d", i/100, i%100), Digest: digest(i), Class: counts.Push, Time: noon}
	}
	r.foldAll(facts)
	r.publish()
	redisPush, diskPush := countsMemory(server)/tags, storedBytes(t, r)/tags
	for i := range facts {
		facts[i].Class, facts[i].Digest = counts.Pull, ""
	}
	r.foldAll(facts)
	r.publish()
	redisBoth, diskBoth := countsMemory(server)/tags, storedBytes(t, r)/tags
	t.Logf("a tag: %d bytes in Redis and %d on disk; one that is pulled %d and %d", redisPush, diskPush, redisBoth, diskBoth)
	if redisPush > 40 || redisBoth > 45 || diskPush > 140 || diskBoth > 140 {
		t.Errorf("a tag costs %d bytes in Redis and %d on disk, one that is pulled too %d and %d; want 40, 140, 45 and 140 at most", redisPush, diskPush, redisBoth, diskBoth)
	}
	// No hash of counts is large. Those of last uses grow with the repository, since all
	// registries have to find the same hash.
	for _, key := range keysIn(t, client, "*") {
		kind := client.Type(t.Context(), key).Val()
		if n := client.HLen(t.Context(), key).Val(); kind == "hash" && n > rediscounts.TagsInHash && !strings.Contains(key, ":uses:") {
			t.Errorf("%s has %d fields, want at most %d", key, n, rediscounts.TagsInHash)
		}
	}
	sum := &rediscounts.Sum{DB: inRedis(client), Now: at(noon)}
	totals, found, _, err := sum.Repository(t.Context(), "team/application")
	if err != nil || len(found) != counts.MaxTags || totals.Counts[counts.Push] != tags || totals.Counts[counts.Pull] != tags {
		t.Errorf("%d tags, %v, %v; want %d", len(found), totals.Counts, err, counts.MaxTags)
	}
}

// TestCostOfRepository measures a repository with one tag and one day.
func TestCostOfRepository(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	const repositories = 5000
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	facts := make([]counts.Fact, repositories)
	for i := range facts {
		facts[i] = counts.Fact{Repository: fmt.Sprintf("team/application-%d", i), Tag: "v1", Digest: digest(i), Class: counts.Push, Time: noon}
	}
	r.foldAll(facts)
	r.publish()
	redis, disk := countsMemory(server)/repositories, storedBytes(t, r)/repositories
	t.Logf("a repository: %d bytes in Redis and %d on disk", redis, disk)
	if redis > 450 || disk > 260 {
		t.Errorf("a repository costs %d bytes in Redis and %d on disk, want 450 and 260 at most", redis, disk)
	}
}

// TestCostOfDay measures a day of a repository.
func TestCostOfDay(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	now := &clock{noon}
	r.c.cfg.Now = now.now
	price := func() int64 { r.publish(); return countsMemory(server) }
	r.fold(pulls(1)...)
	before, disk := price(), storedBytes(t, r)
	for i := range 365 {
		now.at = noon.Add(time.Duration(i+1) * day)
		r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: now.at}, counts.Fact{Repository: "x", Tag: "v1", Class: counts.Head, Time: now.at})
	}
	redis, onDisk := (price()-before)/365, (storedBytes(t, r)-disk)/365
	t.Logf("a day: %d bytes in Redis and %d on disk", redis, onDisk)
	if redis > 20 || onDisk > 30 {
		t.Errorf("a day costs %d bytes in Redis and %d on disk, want 20 and 30 at most", redis, onDisk)
	}
}

// TestCostOfRegistry measures a registry id, with the mark of its last uses, and a start of a
// registry, which has another run.
func TestCostOfRegistry(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	const ids, runs = 5000, 20_000
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.fold(pulls(1)...)
	r.publish()
	keys := inRedis(client).Keys
	copied := func(key string, count int, name func() string) int64 {
		var value string
		for field, val := range client.HGetAll(t.Context(), key).Val() {
			if field != "epoch" && field != "pruned" {
				value = val
			}
		}
		before := server.Memory(key)
		var fields []any
		for range count {
			fields = append(fields, name(), value)
		}
		for chunk := range slices.Chunk(fields, 1000) {
			if err := client.HSet(t.Context(), key, chunk...).Err(); err != nil || value == "" {
				t.Fatalf("copy %q of %s: %v", value, key, err)
			}
		}
		return (server.Memory(key) - before) / int64(count)
	}
	id := copied(keys.IDs(), ids, rediscounts.NewID)
	mark := copied(keys.UsesState(), ids, rediscounts.NewID)
	run := copied(keys.Runs(), runs, func() string { return rediscounts.NewRun(noon) })
	t.Logf("a registry id: %d bytes in Redis, and %d of the mark of its uses; a start: %d", id, mark, run)
	if id+mark > 500 || run > 130 {
		t.Errorf("a registry id costs %d bytes in Redis, its mark %d, and a start %d; want 500 and 130 at most", id, mark, run)
	}
}

func BenchmarkSum(b *testing.B) {
	client := redistest.Start(b).Client()
	r := newReplica(b, "aaaa", client)
	var facts []counts.Fact
	for i := range 20_000 {
		facts = append(facts, counts.Fact{Repository: "large", Tag: fmt.Sprintf("v1.%d", i), Class: counts.Push, Time: noon})
		facts = append(facts, counts.Fact{Repository: fmt.Sprintf("r%d", i%2000), Tag: "v1", Class: counts.Pull, Time: noon})
	}
	r.fold(facts...)
	r.publish()
	sum := &rediscounts.Sum{DB: inRedis(client), Now: at(noon)}
	b.Run("repository", func(b *testing.B) {
		for b.Loop() {
			if _, _, ok, err := sum.Repository(b.Context(), "large"); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("repositories", func(b *testing.B) {
		for b.Loop() {
			if list, err := sum.Repositories(b.Context()); len(list) != 2001 || err != nil {
				b.Fatal(len(list), err)
			}
		}
	})
}
