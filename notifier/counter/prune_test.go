package counter

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counter/pushed"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

const day = 24 * time.Hour

// advanceClock sets a clock and prunes until the clock is trusted.
func advanceClock(t testing.TB, r *replica, now *clock, to time.Time) {
	t.Helper()
	for step := range 6 {
		now.at = to.Add(time.Duration(step) * 12 * time.Hour)
		r.c.publisher.clockCheckedAt = time.Time{} // Redis uses the clock of this machine
		if err := r.c.prune(); err != nil {
			t.Fatal(err)
		}
	}
}

func daysOf(t testing.TB, s counts.Source, days int) (n int64) {
	t.Helper()
	list, err := s.Daily(t.Context(), "x", days)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		n += d.Counts[counts.Pull]
	}
	return n
}

func newClockReplica(t testing.TB, client redis.UniversalClient) (*replica, *clock) {
	now := &clock{noon}
	r := newReplica(t, "aaaa", client)
	r.cfg.Now = now.now
	r.reopen()
	return r, now
}

// TestPruneKeepsTheNewestDays: the number of days is bounded.
func TestPruneKeepsTheNewestDays(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	for _, c := range []redis.UniversalClient{nil, client} {
		r, now := newClockReplica(t, c)
		for range counts.KeepDays + extraDays + 50 {
			r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: now.at})
			now.at = now.at.Add(day)
		}
		r.publish()
		if err := r.c.prune(); err != nil {
			t.Fatal(err)
		}
		r.publish()
		r.publish()
		rows := 0
		for _, prefix := range localPrefixes {
			if err := store.Scan(r.db, rowStart(prefix, "x", counts.PerDay), func(_, _ []byte) error { rows++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if rows != counts.KeepDays+extraDays {
			t.Errorf("%d days are kept, want %d", rows, counts.KeepDays+extraDays)
		}
		now.at = now.at.Add(-day)
		sources := []counts.Source{r.c}
		if c != nil {
			sources = append(sources, &rediscounts.Sum{DB: inRedis(client), Now: now.now})
			if n := client.HLen(t.Context(), rediscounts.NewKeys("").Days(r.c.reg.id(), "x")).Val(); n != counts.KeepDays+extraDays {
				t.Errorf("Redis has %d days, want %d", n, counts.KeepDays+extraDays)
			}
		}
		for _, s := range sources {
			if n := daysOf(t, s, counts.KeepDays); n != counts.KeepDays {
				t.Errorf("%d pulls in the last days, want %d", n, counts.KeepDays)
			}
		}
		if got, tags, _, err := r.c.Repository(t.Context(), "x"); err != nil || got.Counts[counts.Pull] != counts.KeepDays+extraDays+50 || tags["v1"][counts.Pull] != counts.KeepDays+extraDays+50 {
			t.Errorf("totals are %v and tags %v, want no change (%v)", got.Counts, tags, err)
		}
	}
}

// TestPruneAffectsOneRegistry: the counts of another registry stay, also those of a
// day that this one has dropped.
func TestPruneAffectsOneRegistry(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	a, now := newClockReplica(t, client)
	b, _ := newClockReplica(t, client)
	for range counts.KeepDays + extraDays + 1 {
		a.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: now.at})
		now.at = now.at.Add(day)
	}
	b.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon})
	a.publish()
	b.publish()
	if err := a.c.prune(); err != nil {
		t.Fatal(err)
	}
	a.publish()
	a.publish()
	if n := daysOf(t, &rediscounts.Sum{DB: inRedis(client), Now: at(noon)}, 1); n != 1 {
		t.Errorf("%d pulls on the first day, want that of the other registry", n)
	}
	if n := daysOf(t, &rediscounts.Sum{DB: inRedis(client), Now: at(noon.Add(day))}, 1); n != 1 {
		t.Errorf("%d pulls on the second day, want the one that is kept", n)
	}
}

// TestClockJumpsAndPrune: no day is dropped after the clock was wrong for a moment or a year.
func TestClockJumpsAndPrune(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r, now := newClockReplica(t, client)
	for range counts.KeepDays {
		r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: now.at})
		now.at = now.at.Add(day)
	}
	right := now.at.Add(-day)
	for _, jump := range []time.Duration{365 * day, -365 * day, 20 * 365 * day, 3 * day, -3 * day, -10 * day, 20 * day, -20 * day} {
		advanceClock(t, r, now, right.Add(jump))
		r.publish()
		now.at = right
		if err := r.c.prune(); err != nil {
			t.Fatal(err)
		}
		r.publish()
		for _, s := range []counts.Source{r.c, &rediscounts.Sum{DB: inRedis(client), Now: now.now}} {
			if n := daysOf(t, s, counts.KeepDays); n != counts.KeepDays {
				t.Errorf("after %v: %d pulls in the last days, want %d", jump, n, counts.KeepDays)
			}
		}
	}
}

// TestFutureDaysAreDropped: days and times in the future are corrected after the clock was
// ahead and has come back.
func TestFutureDaysAreDropped(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	for _, c := range []redis.UniversalClient{nil, client} {
		r, now := newClockReplica(t, c)
		r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: now.at})
		look := func() {
			if err := r.c.prune(); err != nil {
				t.Fatal(err)
			}
		}
		look()
		now.at = noon.Add(365 * day)
		look()
		r.fold(
			counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: now.at}, counts.Fact{Repository: "quiet", Class: counts.Push, Time: now.at},
			counts.Fact{Repository: "x", Tag: "v1", Class: counts.Push, Time: now.at},
		)
		r.publish()
		now.at = noon.Add(time.Hour)
		r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: now.at})
		r.publish()
		sources := []counts.Source{r.c}
		if c != nil {
			sources = append(sources, &rediscounts.Sum{DB: inRedis(client), Now: now.now})
		}
		for _, s := range sources {
			if got, _, _, err := s.Repository(t.Context(), "x"); err != nil || !got.LastPull.Equal(now.at) {
				t.Errorf("%T: the last pull was at %v, want the one with the right clock (%v)", s, got.LastPull, err)
			}
		}
		advanceClock(t, r, now, noon.Add(2*time.Hour))
		r.publish()
		r.publish()
		for _, s := range sources {
			if n := daysOf(t, s, counts.KeepDays); n != 2 {
				t.Errorf("%T: %d pulls in the days, want 2", s, n)
			}
			got, _, _, err := s.Repository(t.Context(), "x")
			if err != nil || got.Counts[counts.Pull] != 3 || got.LastPush.After(now.at) {
				t.Errorf("%T: %v, last push %v, %v; want 3 pulls and no push in the future", s, got.Counts, got.LastPush, err)
			}
			if got, _, _, err := s.Repository(t.Context(), "quiet"); err != nil || got.LastPush.After(now.at) {
				t.Errorf("%T: the last push of a quiet repository was at %v (%v)", s, got.LastPush, err)
			}
		}
		fields := client.HKeys(t.Context(), rediscounts.NewKeys("").Days(r.c.reg.id(), "x")).Val()
		for _, prefix := range localPrefixes {
			err := store.Scan(r.db, rowStart(prefix, "x", counts.PerDay), func(key, _ []byte) error {
				id, _, err := parseRow(string(key[len(prefix):]))
				fields = append(fields, id.Name)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, field := range fields {
			if n, _ := counts.ParseDay(field); n > counts.DayOf(noon)+2 {
				t.Errorf("day %s is kept", field)
			}
		}
	}
}

// TestFoldOfFutureEvent: an event with a time in the future is counted today.
func TestFoldOfFutureEvent(t *testing.T) {
	t.Parallel()
	r, _ := newClockReplica(t, nil)
	r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon.Add(365 * day)})
	if n := daysOf(t, r.c, 1); n != 1 {
		t.Errorf("%d pulls today, want the one that was folded today", n)
	}
}

// TestRedisClockDiffers: nothing is dropped while our clock and that of Redis differ.
func TestRedisClockDiffers(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r, now := newClockReplica(t, client)
	r.fold(counts.Fact{Repository: "x", Tag: "v1", Digest: digest(1), Class: counts.Push, Time: noon}, counts.Fact{Repository: "x", Tag: "v1", Deleted: true, Time: noon})
	r.publish() // which reads Redis' clock: months from noon
	for step := range 6 {
		now.at = noon.Add(counts.KeepDays*day + time.Duration(step)*12*time.Hour)
		r.publish()
		if err := r.c.prune(); err != nil {
			t.Fatal(err)
		}
	}
	r.publish()
	if _, tags, _, err := r.c.Repository(t.Context(), "x"); err != nil || tags["v1"] == nil {
		t.Errorf("a tag was dropped although the clock of Redis differs (%v)", err)
	}
}

func TestPruneDropsOldPushes(t *testing.T) {
	t.Parallel()
	r, now := newClockReplica(t, nil)
	r.fold(counts.Fact{Repository: "x", Tag: "v1", Digest: digest(1), Class: counts.Push, Time: noon})
	count := func() (n int) {
		if err := store.Scan(r.db, []byte(pushed.Prefix), func(_, _ []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	now.at = noon.Add(counts.KeepDays * day)
	if err := r.c.prune(); err != nil || count() != 1 {
		t.Errorf("%d pushes are kept after a jump of the clock, want 1 (%v)", count(), err)
	}
	advanceClock(t, r, now, now.at)
	if count() != 0 {
		t.Errorf("%d old pushes are kept, want none", count())
	}
}

// TestDeletedTags: the counts of deleted tags are dropped after deletedTagDays, in the store
// and in Redis, unless the tags are pushed again. Totals are kept.
func TestDeletedTags(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	for _, c := range []redis.UniversalClient{nil, client} {
		r, now := newClockReplica(t, c)
		var facts []counts.Fact
		for i := range 300 {
			facts = append(facts, counts.Fact{Repository: "x", Tag: fmt.Sprintf("v%d", i), Class: counts.Push, Time: noon})
		}
		facts = append(facts, counts.Fact{Repository: "x", Tag: "never", Deleted: true, Time: noon})
		r.fold(facts...)
		r.publish()
		for i := range 200 {
			r.fold(counts.Fact{Repository: "x", Tag: fmt.Sprintf("v%d", i), Deleted: true, Time: noon})
		}
		for i := range 50 {
			r.fold(counts.Fact{Repository: "x", Tag: fmt.Sprintf("v%d", i), Class: counts.Push, Time: noon})
		}
		for i := range 20 { // a pull does not show that a tag exists
			r.fold(counts.Fact{Repository: "x", Tag: fmt.Sprintf("v%d", 100+i), Class: counts.Pull, Time: noon})
		}
		r.publish()
		sources := []counts.Source{r.c}
		if c != nil {
			sources = append(sources, &rediscounts.Sum{DB: inRedis(client), Now: now.now})
		}
		check := func(when string, want int) {
			t.Helper()
			r.c.publisher.clockCheckedAt = time.Time{}
			if err := r.c.prune(); err != nil {
				t.Fatal(err)
			}
			r.publish()
			r.publish()
			for _, s := range sources {
				got, tags, _, err := s.Repository(t.Context(), "x")
				if err != nil || len(tags) != want || got.Counts[counts.Push] != 350 || got.Counts[counts.Pull] != 20 {
					t.Errorf("%s, %T: %d tags and %v, want %d and the same totals (%v)", when, s, len(tags), got.Counts, want, err)
				}
			}
		}
		advanceClock(t, r, now, noon.Add(20*day))
		check("too early", 300)
		r.c.publisher.clockCheckedAt = time.Time{}
		advanceClock(t, r, now, noon.Add(27*day))
		check("after deletedTagDays", 150)
		if c == nil {
			continue
		}
		// New tags use their positions.
		for i := range 160 {
			r.fold(counts.Fact{Repository: "x", Tag: fmt.Sprintf("w%d", i), Class: counts.Child, Time: noon})
		}
		check("with new tags", 310)
		keys := keysIn(t, client, "*:"+r.c.reg.id()+":t:x:*")
		if len(keys) != 4 {
			t.Errorf("310 tags are in %d hashes, want 4: %s", len(keys), strings.Join(keys, " "))
		}
	}
}

// TestDeletedTagInStorage: the counts of a tag are kept if its push and its delete were folded
// in the wrong order, or if storage does not answer.
func TestDeletedTagInStorage(t *testing.T) {
	t.Parallel()
	r, now := newClockReplica(t, nil)
	there := map[string]bool{"crossed": true}
	var down error
	r.c.cfg.HasTag = func(_, tag string) (bool, error) { return there[tag], down }
	for _, tag := range []string{"crossed", "deleted"} {
		r.fold(counts.Fact{Repository: "x", Tag: tag, Class: counts.Push, Time: noon}, counts.Fact{Repository: "x", Tag: tag, Deleted: true, Time: noon})
	}
	check := func(want ...string) {
		t.Helper()
		if err := r.c.prune(); err != nil {
			t.Fatal(err)
		}
		_, tags, _, err := r.c.Repository(t.Context(), "x")
		if got := slices.Sorted(maps.Keys(tags)); err != nil || !slices.Equal(got, want) {
			t.Errorf("tags %v, want %v (%v)", got, want, err)
		}
	}
	down = errors.New("storage is down")
	advanceClock(t, r, now, noon.Add(31*day))
	check("crossed", "deleted")
	down = nil
	check("crossed")
	there["crossed"] = false // without an event
	check("crossed")
	r.fold(counts.Fact{Repository: "x", Tag: "crossed", Deleted: true, Time: now.at})
	check("crossed")
	advanceClock(t, r, now, now.at.Add(31*day))
	check()
}

// TestTagsDeletedElsewhere: of two registries that share their storage, one deletes a tag.
func TestTagsDeletedElsewhere(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	a, nowA := newClockReplica(t, client)
	b, nowB := newClockReplica(t, client)
	fact := func(tag string, class counts.Class, deleted bool) counts.Fact {
		return counts.Fact{Repository: "x", Tag: tag, Class: class, Deleted: deleted, Time: noon}
	}
	both := func() {
		t.Helper()
		for range 2 {
			a.publish()
			b.publish()
		}
	}
	a.fold(fact("deleted", counts.Push, false), fact("again here", counts.Push, false), fact("again there", counts.Push, false), fact("new there", counts.Push, false))
	b.fold(fact("deleted", counts.Pull, false), fact("again here", counts.Pull, false), fact("again there", counts.Pull, false))
	both()
	for _, tag := range []string{"deleted", "again here", "again there", "new there"} {
		a.fold(counts.Fact{Repository: "x", Tag: tag, Deleted: true, Time: noon})
	}
	both()
	a.fold(fact("again here", counts.Push, false))
	b.fold(fact("again there", counts.Push, false), fact("new there", counts.Push, false))
	both()
	b.reopen() // which reads all changes of tags again
	both()
	for i, r := range []*replica{a, b} {
		advanceClock(t, r, []*clock{nowA, nowB}[i], noon.Add(31*day))
	}
	both()
	_, tags, _, err := (&rediscounts.Sum{DB: inRedis(client), Now: nowA.now}).Repository(t.Context(), "x")
	want := map[string]map[counts.Class]int64{
		"again here":  {counts.Push: 2, counts.Pull: 1},
		"again there": {counts.Push: 2, counts.Pull: 1},
		"new there":   {counts.Push: 2},
	}
	if err != nil || !reflect.DeepEqual(tags, want) {
		t.Errorf("tags %v, want %v (%v)", tags, want, err)
	}
}
