package counter

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// newUsesReplica is a registry that shares its uses, at the time of a clock.
func newUsesReplica(t testing.TB, name string, client redis.UniversalClient, now *clock) *replica {
	r := &replica{
		t: t, journal: name, fs: vfs.NewCrashableMem(), want: map[string]map[counts.Class]int64{},
		cfg: Config{Redis: inRedis(client), Now: now.now, Instance: name, Host: "host-" + name},
	}
	r.open()
	return r
}

// allUses are the uses of all registries by digest number; those of x.
func (r *replica) allUses(digests ...int) (map[int]lastuse.Use, lastuse.Known) {
	r.t.Helper()
	rows := map[lastuse.Key]lastuse.Use{}
	known, err := r.c.AllUses(r.t.Context(), "x", func(k lastuse.Key, u lastuse.Use) error { rows[k] = u; return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	uses := map[int]lastuse.Use{}
	for _, d := range digests {
		if u, ok := rows[lastuse.OfDigest(digest(d))]; ok {
			uses[d] = u
		}
	}
	return uses, known
}

// wantUses checks the uses of x that a registry knows.
func (r *replica) wantUses(when string, since time.Time, missing string, want map[int]lastuse.Use) {
	r.t.Helper()
	got, known := r.allUses(1, 2, 3, 4)
	if !maps.Equal(got, want) {
		r.t.Errorf("%s: %s has the uses %v, want %v", when, r.journal, got, want)
	}
	if !known.Since.Equal(since) {
		r.t.Errorf("%s: %s knows the uses since %v, want %v", when, r.journal, known.Since, since)
	}
	if missing == "" && known.Missing != "" || !strings.Contains(known.Missing, missing) {
		r.t.Errorf("%s: %s misses %q, want %q", when, r.journal, known.Missing, missing)
	}
}

func TestSharedUses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	now := &clock{noon}
	a := newUsesReplica(t, "a", server.Client(), now)
	a.wantUses("at the start", noon, "has not exchanged", map[int]lastuse.Use{})
	a.publish()
	now.at = noon.Add(time.Hour)
	b := newUsesReplica(t, "b", server.Client(), now)
	since := now.at
	b.publish()

	first := now.at
	a.fold(pullAt(1, first), pullAt(2, first))
	now.at = noon.Add(10 * time.Hour)
	b.fold(pullAt(2, now.at), pullAt(3, now.at))
	want := map[int]lastuse.Use{1: usedIn(first), 2: usedIn(now.at), 3: usedIn(now.at)}
	both := func(when string, since time.Time) {
		t.Helper()
		for _, r := range []*replica{a, b} {
			r.wantUses(when, since, "", want)
		}
	}
	a.publish()
	b.publish()
	both("published", since)

	b.fold(pullAt(2, now.at), pullAt(3, now.at.Add(time.Minute)))
	if n := len(b.c.unsentUses); n != 0 {
		t.Errorf("%d uses are sent twice in an hour", n)
	}

	// A process that is killed before it has sent a use sends it after its start.
	a.fold(pullAt(4, now.at))
	a.reopen()
	a.publish()
	want[4] = usedIn(now.at)
	both("after a restart", since)

	// Redis loses everything. The uses of b are not known until it sends them again.
	server.Flush()
	now.at = now.at.Add(time.Minute)
	a.wantUses("flushed", noon, "uses were lost in Redis", map[int]lastuse.Use{1: usedIn(first), 2: usedIn(first), 4: want[4]})
	a.publish()
	a.wantUses("only a is back", now.at, "", map[int]lastuse.Use{1: usedIn(first), 2: usedIn(first), 4: want[4]})
	b.publish()
	a.publish()
	both("both are back", since)

	// A delete ends the row in Redis, unless it was used shortly before.
	deletion := func(d int) counts.Fact {
		return counts.Fact{Repository: "x", Digest: digest(d), Deleted: true, Time: now.at}
	}
	a.replay(deletion(1), deletion(4))
	a.publish()
	delete(want, 1)
	b.publish()
	both("deleted", since)

	// A registry that does not reach Redis.
	now.at = now.at.Add(2 * time.Minute)
	a.publish()
	a.wantUses("b is silent", since, "host-b", want)
	b.publish()
	b.c.release()
	now.at = now.at.Add(2 * time.Minute)
	a.publish()
	a.wantUses("b has stopped", since, "", want)

	server.Kill()
	a.wantUses("without Redis", noon, "Redis cannot be read", map[int]lastuse.Use{2: usedIn(first)})
}

// TestSharedUsesSetBack: Redis loses the last writes, as after a failover to a replica that
// lags.
func TestSharedUsesSetBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	now := &clock{noon}
	client := server.Client()
	a, b := newUsesReplica(t, "a", client, now), newUsesReplica(t, "b", client, now)
	a.publish()
	b.publish()
	dump := server.Dump()
	now.at = noon.Add(time.Hour)
	a.publish()
	b.fold(pullAt(1, now.at))
	b.publish()
	now.at = noon.Add(2 * time.Hour)
	lost := now.at
	server.Restore(dump)
	waitForRedis(t, client)
	a.publish()
	a.wantUses("set back", lost, "host-b", map[int]lastuse.Use{})
	b.publish()
	a.publish()
	a.wantUses("sent again", noon, "", map[int]lastuse.Use{1: usedIn(noon.Add(time.Hour))})

	// Events of a were lost.
	now.at = lost.Add(time.Second)
	if err := a.c.UsesLost(); err != nil {
		t.Fatal(err)
	}
	a.publish()
	for _, r := range []*replica{a, b} {
		r.wantUses("events of a were lost", now.at, "", map[int]lastuse.Use{1: usedIn(noon.Add(time.Hour))})
	}
}

// TestUnsentUses: changed rows are bounded while Redis is away.
func TestUnsentUses(t *testing.T) {
	t.Parallel()
	race.Skip(t, "it measures memory")
	server := redistest.Start(t)
	now := &clock{noon}
	a, b := newUsesReplica(t, "a", server.Client(), now), newUsesReplica(t, "b", server.Client(), now)
	a.publish()
	b.publish()
	const n = maxUnsentUses + 1000
	facts := make([]counts.Fact, n)
	for i := range facts {
		facts[i] = pullAt(i, noon)
	}
	a.foldAll(facts)
	if got := len(a.c.unsentUses); got > maxUnsentUses {
		t.Errorf("%d changed rows are in memory", got)
	}
	a.publish()
	rows := 0
	if _, err := b.c.AllUses(t.Context(), "x", func(lastuse.Key, lastuse.Use) error { rows++; return nil }); err != nil || rows != n {
		t.Errorf("b has %d rows, %v; want %d", rows, err, n)
	}
	t.Logf("%d bytes in Redis for each of %d rows", server.Memory("*:uses:*")/n, n)
}

// TestCostOfUses measures a row in Redis (docs/redis.md).
func TestCostOfUses(t *testing.T) {
	t.Parallel()
	race.Skip(t, "it measures memory")
	server := redistest.Start(t)
	a := newUsesReplica(t, "a", server.Client(), &clock{noon})
	for _, c := range []struct{ rows, most int }{{20, 140}, {1000, 45}, {5000, 110}} {
		name := fmt.Sprintf("team/app-%d", c.rows)
		facts := make([]counts.Fact, c.rows)
		for i := range facts {
			facts[i] = counts.Fact{Repository: name, Digest: digest(i), Class: counts.Push, Time: noon}
		}
		a.foldAll(facts)
		a.publish()
		hash := lastuse.IDOf(name, lastuse.Key{}).Repository()
		bytes := int(server.Memory(fmt.Sprintf("*:uses:%x:*", hash))) / c.rows
		t.Logf("%d bytes in Redis for each of %d tags and manifests of a repository", bytes, c.rows)
		if bytes > c.most || bytes == 0 {
			t.Errorf("each of %d rows takes %d bytes in Redis, want %d at most", c.rows, bytes, c.most)
		}
	}
}
