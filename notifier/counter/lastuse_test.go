package counter

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/lastuse"
)

func (r *replica) uses(repository string) map[lastuse.Key]lastuse.Use {
	r.t.Helper()
	all := map[lastuse.Key]lastuse.Use{}
	err := r.c.Uses(repository, func(k lastuse.Key, u lastuse.Use) error { all[k] = u; return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// usedIn is the use of a digest that was used at a time and never pushed.
func usedIn(at time.Time) lastuse.Use { return lastuse.Use{Used: at.Unix() / 3600} }

func pullAt(d int, at time.Time) counts.Fact {
	return counts.Fact{Repository: "x", Digest: digest(d), Class: counts.Pull, Time: at}
}

func TestUses(t *testing.T) {
	t.Parallel()
	now := &clock{noon}
	r := &replica{t: t, journal: "aaaa", fs: vfs.NewCrashableMem(), cfg: Config{Now: now.now}, want: map[string]map[counts.Class]int64{}}
	r.open()
	since := noon
	now.at = noon.Add(10 * time.Hour)
	r.fold(pullAt(1, now.at))
	want := map[lastuse.Key]lastuse.Use{lastuse.OfDigest(digest(1)): usedIn(now.at)}
	for range 2 {
		if got := r.uses("x"); !maps.Equal(got, want) {
			t.Errorf("uses %v, want %v", got, want)
		}
		if got := r.c.UsesSince(); !got.Equal(since) {
			t.Errorf("the uses are known since %v, want %v", got, since)
		}
		now.at = now.at.Add(time.Hour)
		r.reopen()
	}
	if err := r.c.UsesLost(); err != nil {
		t.Fatal(err)
	}
	since = now.at
	now.at = now.at.Add(time.Hour)
	r.reopen()
	if got := r.c.UsesSince(); !got.Equal(since) {
		t.Errorf("after a loss the uses are known since %v, want %v", got, since)
	}
}

// TestUsesOfOtherVersion: the uses are not known if events were folded without them, by a
// version that does not track them.
func TestUsesOfOtherVersion(t *testing.T) {
	t.Parallel()
	now := &clock{noon}
	r := &replica{t: t, journal: "aaaa", fs: vfs.NewCrashableMem(), cfg: Config{Now: now.now}, want: map[string]map[counts.Class]int64{}}
	r.open()
	r.fold(pullAt(1, now.at))
	now.at = noon.Add(time.Hour)
	r.reopen()
	if got := r.c.UsesSince(); !got.Equal(noon) {
		t.Errorf("the uses are known since %v, want %v", got, noon)
	}
	r.seq += 10
	if err := r.db.Set(cursorKey("aaaa", 1), []byte{0, 0, 0, 0, 0, 0, 0, byte(r.seq)}, store.Sync); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if got := r.c.UsesSince(); !got.Equal(now.at) {
		t.Errorf("after an older version the uses are known since %v, want %v", got, now.at)
	}
}

// TestUsesAfterCrash: after each crash the events that are not on disk are folded again, and
// no last use that was on disk goes back.
func TestUsesAfterCrash(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(20, 20))
	now := &clock{noon}
	r := &replica{t: t, journal: "aaaa", fs: vfs.NewCrashableMem(), cfg: Config{Now: now.now}, want: map[string]map[counts.Class]int64{}}
	r.open()
	var journal []counts.Fact
	want := map[lastuse.Key]lastuse.Use{}
	for round := range 60 {
		for range rnd.IntN(20) {
			now.at = now.at.Add(time.Duration(rnd.IntN(90)) * time.Minute)
			f := pullAt(rnd.IntN(5), now.at)
			journal = append(journal, f)
			want[lastuse.OfDigest(f.Digest)] = usedIn(now.at)
		}
		first := int(cursor(r.c, "aaaa", 1))
		upTo := first + rnd.IntN(len(journal)-first+1)
		before := r.uses("x")
		if err := r.c.Fold("aaaa", 1, uint64(upTo), journal[first:upTo], nil); err != nil {
			t.Fatal(err)
		}
		if round%3 == 0 {
			r.fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rnd})
			r.open()
		}
		after := r.uses("x")
		for k, u := range before {
			if after[k].Used < u.Used {
				t.Fatalf("round %d: a last use went back from %v to %v", round, u.Last(), after[k].Last())
			}
		}
	}
	first := cursor(r.c, "aaaa", 1)
	if err := r.c.Fold("aaaa", 1, uint64(len(journal)), journal[first:], nil); err != nil {
		t.Fatal(err)
	}
	if got := r.uses("x"); !maps.Equal(got, want) {
		t.Errorf("uses %v, want %v", got, want)
	}
	if got := r.c.UsesSince(); !got.Equal(noon) {
		t.Errorf("the uses are known since %v, want %v", got, noon)
	}
}

// TestUsesAfterFailedFold: a fold that fails leaves nothing in memory.
func TestUsesAfterFailedFold(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "aaaa", nil)
	facts := []counts.Fact{pullAt(1, noon)}
	failed := fmt.Errorf("failed by test")
	if err := r.c.Fold("aaaa", 1, 1, facts, func(store.Batch) error { return failed }); err == nil {
		t.Fatal("the fold succeeded")
	}
	if got := r.uses("x"); len(got) != 0 {
		t.Errorf("uses %v after a failed fold", got)
	}
	r.replay(facts...)
	want := map[lastuse.Key]lastuse.Use{lastuse.OfDigest(digest(1)): usedIn(noon)}
	if got := r.uses("x"); !maps.Equal(got, want) {
		t.Errorf("uses %v, want %v", got, want)
	}
}
