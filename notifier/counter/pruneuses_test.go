package counter

import (
	"maps"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// pruneAt prunes the counts of a registry at a time, with a clock that is trusted.
func pruneAt(t testing.TB, r *replica, now *clock, to time.Time) {
	t.Helper()
	advanceClock(t, r, now, to)
	if err := r.c.pruneRedis(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A last use ends after lastuse.KeepDays, on disk and in Redis, unless it is that of a tag that
// exists. Later ones stay, and uses are known for the time for which they are kept.
func TestPruneUses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	now := &clock{noon}
	a := newUsesReplica(t, "a", server.Client(), now)
	b := newUsesReplica(t, "b", server.Client(), now)
	used := func(tag string, d int) counts.Fact {
		return counts.Fact{Repository: "x", Tag: tag, Digest: digest(d), Class: counts.Pull, Time: now.at}
	}
	a.fold(used("kept", 1), used("gone", 2), used("", 3), used("", 4))
	b.fold(used("", 5))
	a.publish()
	// Redis keeps what is deleted soon after its last use, since another registry may have it.
	a.replay(counts.Fact{Repository: "x", Tag: "gone", Deleted: true, Time: now.at}, counts.Fact{Repository: "x", Digest: digest(2), Deleted: true, Time: now.at})
	now.at = noon.Add(200 * day)
	a.fold(used("", 4))
	for _, r := range []*replica{a, b, a} {
		r.publish()
	}

	pruneAt(t, a, now, noon.Add((lastuse.KeepDays-10)*day))
	rows := func() map[lastuse.Key]lastuse.Use {
		t.Helper()
		all := map[lastuse.Key]lastuse.Use{}
		if _, err := a.c.AllUses(t.Context(), "x", func(k lastuse.Key, u lastuse.Use) error { all[k] = u; return nil }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if got := rows(); len(got) != 7 {
		t.Errorf("%d last uses before their time has passed, want those of 2 tags and 5 manifests", len(got))
	}
	a.publish() // the counts of the deleted tag have ended
	a.publish()
	pruneAt(t, a, now, noon.Add((lastuse.KeepDays+10)*day))
	old, recent := usedIn(noon), usedIn(noon.Add(200*day))
	want := map[lastuse.Key]lastuse.Use{lastuse.OfTag("kept"): old, lastuse.OfDigest(digest(4)): recent}
	if got := rows(); !maps.Equal(got, want) {
		t.Errorf("last uses of all registries %v, want %v", got, want)
	}
	if got := a.uses("x"); !maps.Equal(got, want) {
		t.Errorf("last uses on disk %v, want %v", got, want)
	}
	known, err := a.c.AllUses(t.Context(), "x", func(lastuse.Key, lastuse.Use) error { return nil })
	if oldest := now.at.Add(-(lastuse.KeepDays + 1) * day); err != nil || !known.Since.Equal(oldest) {
		t.Errorf("the uses are known since %v, %v; want %v", known.Since, err, oldest)
	}

	// Registries that send old uses again do not keep them.
	b.reopen()
	b.publish()
	pruneAt(t, b, now, now.at)
	pruneAt(t, a, now, now.at)
	if got := rows(); !maps.Equal(got, want) {
		t.Errorf("after a restart of the other registry: %v, want %v", got, want)
	}
}

// Runs end after rediscounts.KeepRuns days. An older copy of the folder, with counts that Redis
// has, does not count them again, and nothing of the folder itself or of another one is lost.
func TestPruneRuns(t *testing.T) {
	t.Parallel()
	for _, instance := range []string{"", "copy"} {
		server := redistest.Start(t)
		client := server.Client()
		now := &clock{noon}
		a, b := newUsesReplica(t, "a", client, now), newUsesReplica(t, "b", client, now)
		for _, r := range []*replica{a, b} {
			r.fold(pulls(60)...)
			r.publish()
			r.fold(pulls(7)...)
		}
		back := a.clone()
		a.publish()
		now.at = noon.Add(day)
		a.reopen()
		a.fold(pulls(1)...)
		a.publish()
		runs := func() map[string]string { return client.HGetAll(t.Context(), rediscounts.NewKeys("").Runs()).Val() }
		pruneAt(t, a, now, noon.Add((rediscounts.KeepRuns-10)*day))
		if got := runs(); len(got) != 3 {
			t.Errorf("%d runs, want two and one: %v", len(got), got)
		}
		pruneAt(t, a, now, noon.Add((rediscounts.KeepRuns+10)*day))
		if got := runs(); len(got) != 3 || got[a.c.run] != a.c.reg.id() || got[b.c.run] != b.c.reg.id() || got["pruned"] == "" {
			t.Errorf("runs %v, want the current ones, and since when they are kept", got)
		}

		b.reopen() // its last counts are still pending
		b.publish()
		b.db.Close()
		a.db.Close()
		checkSum(t, client, a, b)
		if back.cfg.Instance += instance; instance != "" {
			back.cfg.WatchFor = 1 // the folder was moved
		}
		back.open()
		for range 3 {
			_, _ = back.c.Publish(t.Context()) // it first watches the record
			now.at = now.at.Add(time.Second)
		}
		back.fold(pulls(2)...)
		back.publish()
		sum := rediscounts.Sum{DB: inRedis(client), Now: now.now}
		if got, _, _, err := sum.Repository(t.Context(), "x"); err != nil || got.Counts[counts.Pull] != 68+67+2 {
			t.Errorf("%v pulls after the copy was started, %v; want %d", got.Counts, err, 68+67+2)
		}
	}
}
