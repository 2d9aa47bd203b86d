package statsrecords

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Each public repository has a record with its counts, and only those whose counts
// have changed are written and read.
func TestRounds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.private = []string{"secret/app"}
	r.counts.set("oss/app", 3, 1)
	r.counts.set("oss/lib", 0, 2)
	r.counts.set("oss/checked", 0, 0) // only HEAD requests
	r.counts.set("secret/app", 5, 5)
	r.counts.set("private:oss/app", 9, 9) // private images
	r.counts.set(bob+"/app", 8, 0)
	r.round()
	r.want(bob+"/app 8 0", "oss/app 3 1", "oss/lib 0 2")
	if n := r.written(); n != 3 {
		t.Errorf("%d writes, want 3", n)
	}
	reads := r.account.reads
	r.round()
	if n := r.written(); n != 0 || r.account.reads != reads {
		t.Errorf("nothing has changed: %d writes, %d reads", n, r.account.reads-reads)
	}
	r.counts.set("oss/app", 4, 1)
	r.round()
	r.want(bob+"/app 8 0", "oss/app 4 1", "oss/lib 0 2")
	if n := r.written(); n != 1 || r.account.reads != reads+1 {
		t.Errorf("one repository has changed: %d writes, %d reads", n, r.account.reads-reads)
	}
}

func TestRecordFields(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.totals[bob+"/app"] = counts.Totals{
		Name: bob + "/app", Counts: map[counts.Class]int64{counts.Pull: 2, counts.Push: 1, counts.Retag: 1, counts.Child: 7},
		LastPull: time.Date(2026, 10, 31, 1, 2, 3, 4e6, time.FixedZone("", 3600)),
	}
	r.round()
	want := lexicon.Stats{
		OwnerDID: bob, Repository: "app", PullCount: 2, PushCount: 1,
		LastPull: "2026-10-31T00:02:03.004Z", UpdatedAt: "2026-11-01T18:00:00.000Z",
	}
	if got := r.records()[lexicon.StatsKey(bob, "app")]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Counts and times that are lower than the published ones change nothing, whether the
// state still knows the record or not.
func TestNeverLower(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*rig){"counts lost": func(*rig) {}, "state lost": (*rig).loseState} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			at := r.now
			set := func(pulls, pushes int64, last time.Time) {
				r.counts.set("oss/app", pulls, pushes)
				totals := r.counts.totals["oss/app"]
				totals.LastPull = last
				r.counts.totals["oss/app"] = totals
			}
			set(10, 5, at)
			r.round()
			r.written()
			lose(r)
			set(2, 1, at.Add(-time.Hour))
			r.round()
			if n := r.written(); n != 0 {
				t.Errorf("%d writes of lower counts", n)
			}
			set(3, 6, at.Add(-time.Minute))
			r.round()
			r.want("oss/app 10 6")
			if got := r.records()[lexicon.StatsKey(owner, "oss/app")].LastPull; got != lexicon.Datetime(at) {
				t.Errorf("lastPull is %s, want %s", got, lexicon.Datetime(at))
			}
			delete(r.counts.totals, "oss/app")
			r.round()
			r.want("oss/app 10 6")
		})
	}
}

// The record of a repository that is not public any more is deleted, also if the
// state was lost in the meantime. When it is public again it gets a new one.
func TestNotPublicAnyMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set("oss/app", 1, 1)
	r.counts.set("oss/lib", 2, 2)
	r.counts.set("oss/tool", 3, 3)
	r.round()
	r.private = []string{"oss/app"}
	r.round()
	r.want("oss/lib 2 2", "oss/tool 3 3")
	r.private = []string{"oss/app", "oss/lib"}
	r.loseState()
	r.round()
	r.want("oss/tool 3 3")
	r.private = nil
	r.round()
	r.want("oss/app 1 1", "oss/lib 2 2", "oss/tool 3 3")
}

// Records of another registry, whose repositories are not counted here, stay.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other, err := encode(lexicon.Stats{OwnerDID: owner, Repository: "other/app", PullCount: 1, UpdatedAt: lexicon.Datetime(r.now)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.account.repo.Apply(t.Context(), []repo.Write{{
		Action: repo.Create, Collection: lexicon.NSIDStats, RKey: lexicon.StatsKey(owner, "other/app"), Record: other,
	}}, nil); err != nil {
		t.Fatal(err)
	}
	r.private = []string{"other/app"}
	r.counts.set("oss/app", 1, 1)
	r.round()
	r.want("oss/app 1 1", "other/app 1 0")
}

// When the option owner changes, the records of the earlier owner are replaced.
func TestAnotherOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set("oss/app", 3, 1)
	r.round()
	r.cfg.Owner = bob
	r.restart()
	r.round()
	r.want("oss/app 3 1")
	if _, found := r.records()[lexicon.StatsKey(bob, "oss/app")]; !found {
		t.Error("there is no record of the new owner")
	}
}

// A lost request or a lost answer, each with and without a restart and with counts that
// grow before the next attempt, ends with each record written once.
func TestLostRequestsAndAnswers(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fault{"lost request": lostRequest, "lost answer": lostAnswer} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				r.counts.set("was/public", 1, 1)
				r.counts.set("oss/old", 1, 1)
				r.round()
				r.written()
				r.private = []string{"was/public"} // a delete
				r.counts.set("oss/old", 2, 1)      // an update
				r.counts.set("oss/new", 4, 1)      // a create
				r.account.faults = []fault{f}
				r.now = r.now.Add(DefaultInterval)
				if err := r.Round(t.Context()); !errors.Is(err, errFault) {
					t.Fatalf("got %v", err)
				}
				if err := r.Status().Err; !errors.Is(err, errFault) {
					t.Errorf("the status is %v", err)
				}
				if restart {
					r.restart()
				}
				want := []string{"oss/new 5 1", "oss/old 2 1"}
				if f == lostAnswer {
					want[0] = "oss/new 4 1" // it was written in this round
				}
				r.counts.set("oss/new", 5, 1)
				r.now = r.now.Add(time.Minute)
				if err := r.Round(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.want(want...)
				if n := r.written(); n != 3 {
					t.Errorf("%d writes, want 3", n)
				}
				if s := r.Status(); s.Err != nil || s.Waiting || s.Last.IsZero() {
					t.Errorf("the status is %+v", s)
				}
				r.round()
				r.want("oss/new 5 1", "oss/old 2 1")
			})
		}
	}
}

// While the account cannot be read nothing is written: neither before the rows are read
// from its records nor later.
func TestUnreadableAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set("oss/app", 3, 1)
	for _, pulls := range []int64{3, 4} {
		r.account.down = true
		r.counts.set("oss/app", pulls, 1)
		r.now = r.now.Add(DefaultInterval)
		if err := r.Round(t.Context()); !errors.Is(err, errFault) {
			t.Errorf("got %v", err)
		}
		if n := r.written(); n != 0 {
			t.Errorf("%d writes while the account cannot be read", n)
		}
		r.account.down = false
		r.round()
		r.want(fmt.Sprintf("oss/app %d 1", pulls))
		r.written()
	}
}

// A Source that cannot be read fails the round, unless it is known to be incomplete.
func TestUnreadableSource(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	lost := errors.New("the counts are lost")
	var reason error
	r.cfg.Ready = func() error { return reason }
	r.cfg.Source = sourceFunc(func() error { return lost })
	r.restart()
	if err := r.Round(t.Context()); !errors.Is(err, lost) || r.Status().Err == nil {
		t.Errorf("got %v, status %+v", err, r.Status())
	}
	r.cfg.Source = sourceFunc(func() error { reason = lost; return lost })
	r.restart()
	if err := r.Round(t.Context()); !errors.Is(err, ErrNotReady) || !r.Status().Waiting || r.Status().Err != nil {
		t.Errorf("got %v, status %+v", err, r.Status())
	}
}

// sourceFunc is a Source that fails.
type sourceFunc func() error

func (f sourceFunc) Repositories(context.Context) ([]counts.Totals, error) { return nil, f() }

// A crash between the answer and the commit of the rows writes nothing twice.
func TestCrashBeforeRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set("oss/app", 1, 1)
	store := r.cfg.State
	r.cfg.State = &crashingStore{Store: store}
	r.restart()
	if err := r.Round(t.Context()); !errors.Is(err, errCrash) {
		t.Fatalf("got %v", err)
	}
	r.cfg.State = store
	r.restart()
	r.counts.set("oss/app", 2, 1)
	r.now = r.now.Add(time.Minute)
	if err := r.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.written(); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	r.round()
	r.want("oss/app 2 1")
}

var errCrash = errors.New("crashed")

// crashingStore fails at the second commit that is not synced: the first one is that
// of readRows.
type crashingStore struct {
	state.Store
	commits int
}

func (c *crashingStore) Commit(b *state.Batch, d state.Durability) error {
	if d == state.NoSync {
		if c.commits++; c.commits == 2 {
			return errCrash
		}
	}
	return c.Store.Commit(b, d)
}

// The writes of a round are sent in commits of at most 200.
func TestBatches(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 450 {
		r.counts.set(fmt.Sprintf("oss/app%03d", i), 1, 1)
	}
	r.round()
	if n := r.written(); n != 450 || r.account.commits != 3 {
		t.Errorf("%d writes in %d commits", n, r.account.commits)
	}
}

// Without points a round pauses. It continues, also after a restart, with what it has
// not written yet, whatever has grown in the meantime.
func TestPoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	points := 0 // enough for so many writes
	r.cfg.Fit = func(writes []repo.Write) int { return min(points, len(writes)) }
	r.account.spend = func(n int) { points -= n }
	r.restart()
	for i := range 5 {
		r.counts.set(fmt.Sprint("oss/app", i), 1, 1)
	}
	attempt := func(n int, want error) {
		t.Helper()
		points = n
		r.now = r.now.Add(time.Minute)
		if err := r.Round(t.Context()); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	attempt(3, ErrNoPoints)
	r.want("oss/app0 1 1", "oss/app1 1 1", "oss/app2 1 1")
	if s := r.Status(); !s.Waiting || s.Err != nil || !s.Last.IsZero() {
		t.Errorf("the status is %+v", s)
	}
	r.restart()
	r.counts.set("oss/app0", 2, 1)
	attempt(0, ErrNoPoints)
	reads := r.account.reads
	attempt(5, nil)
	r.want("oss/app0 1 1", "oss/app1 1 1", "oss/app2 1 1", "oss/app3 1 1", "oss/app4 1 1")
	if n := r.account.reads - reads; n != 2 {
		t.Errorf("%d records were read, want the 2 that were not written yet", n)
	}
	attempt(5, nil)
	r.want("oss/app0 2 1", "oss/app1 1 1", "oss/app2 1 1", "oss/app3 1 1", "oss/app4 1 1")
}

// A record that is invalid or refused does not keep the others from being written.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set(strings.Repeat("a", 257), 1, 1)
	r.counts.set("oss/app", 1, 1)
	r.counts.set("oss/lib", 1, 1)
	r.cfg.Account = &racingAccount{r.account, lexicon.StatsKey(owner, "oss/app")}
	r.restart()
	r.round()
	r.want("oss/app 50 0", "oss/lib 1 1")
	r.round()
	r.want("oss/app 50 1", "oss/lib 1 1")
}

// racingAccount is one in which another writer creates a record after it was read.
type racingAccount struct {
	*account
	rkey string
}

func (a *racingAccount) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	if a.rkey != "" {
		record, err := encode(lexicon.Stats{OwnerDID: owner, Repository: "oss/app", PullCount: 50, UpdatedAt: "2026-01-01T00:00:00Z"})
		if err != nil {
			return repo.Result{}, err
		}
		if _, err := a.repo.Apply(ctx, []repo.Write{{Action: repo.Create, Collection: lexicon.NSIDStats, RKey: a.rkey, Record: record}}, nil); err != nil {
			return repo.Result{}, err
		}
		a.rkey = ""
	}
	return a.account.Apply(ctx, writes, swap)
}

// Run begins a round at each interval, retries after errors, and stops.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Now = time.Now
		var ready atomic.Bool
		r.cfg.Ready = func() error {
			if !ready.Load() {
				return errors.New("the stores are being compared")
			}
			return nil
		}
		r.restart()
		r.counts.set("oss/app", 1, 1)
		stopped := make(chan error)
		ctx, stop := context.WithCancel(t.Context())
		go func() { stopped <- r.Run(ctx) }()
		synctest.Wait()
		r.want()
		if s := r.Status(); !s.Waiting || s.Err != nil {
			t.Errorf("not ready: %+v", s)
		}
		ready.Store(true)
		time.Sleep(readyWait)
		synctest.Wait()
		r.want("oss/app 1 1")
		began := r.Status().Last
		r.counts.set("oss/app", 2, 1)
		time.Sleep(DefaultInterval - time.Minute)
		synctest.Wait()
		r.want("oss/app 1 1")
		r.account.fail(lostRequest, lostRequest)
		time.Sleep(time.Minute)
		synctest.Wait()
		if r.Status().Err == nil {
			t.Error("the failed attempt is not in the status")
		}
		time.Sleep(3 * time.Minute) // the second and third attempt
		synctest.Wait()
		r.want("oss/app 2 1")
		if s := r.Status(); s.Err != nil || s.Last.Sub(began) != DefaultInterval {
			t.Errorf("the status is %+v", s)
		}
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// A clock that was ahead does not delay the next round by more than the interval.
func TestClockWasAhead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set("oss/app", 1, 1)
	r.now = r.now.AddDate(1, 0, 0)
	r.round()
	r.now = r.now.AddDate(-1, 0, 0)
	r.counts.set("oss/app", 2, 1)
	if wait, err := r.next(t.Context()); wait != 0 || err != nil {
		t.Errorf("wait %s, %v", wait, err)
	}
	r.want("oss/app 2 1")
	if wait, err := r.due(); wait != DefaultInterval || err != nil {
		t.Errorf("the next round is due in %s, %v", wait, err)
	}
}

func TestValidateInterval(t *testing.T) {
	t.Parallel()
	for d, valid := range map[time.Duration]bool{0: false, 59 * time.Second: false, time.Minute: true, DefaultInterval: true, 720 * time.Hour: true, 721 * time.Hour: false} {
		if err := ValidateInterval(d); (err == nil) != valid {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// A repository's record names the owner that OwnerOf returns, and moves when that changes.
// While the owner is not known, the record stays as it is.
func TestOwnerOf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const alice = "did:web:alice.example.com"
	owners := map[string]string{"oss/a": alice, "oss/b": ""}
	r.cfg.OwnerOf = func(_ context.Context, repository string) (string, bool) {
		return owners[repository], owners[repository] != ""
	}
	r.restart()
	r.counts.set("oss/a", 1, 0)
	r.counts.set("oss/b", 2, 0)
	published := func() map[string]string {
		r.round()
		all := map[string]string{}
		for _, s := range r.records() {
			all[s.Repository] = s.OwnerDID
		}
		return all
	}
	for _, step := range []struct {
		name string
		a, b string
		want map[string]string
	}{
		{"b is not known", alice, "", map[string]string{"oss/a": alice}},
		{"both are known", alice, bob, map[string]string{"oss/a": alice, "oss/b": bob}},
		{"a is not known any more", "", bob, map[string]string{"oss/a": alice, "oss/b": bob}},
		{"a has another owner", bob, bob, map[string]string{"oss/a": bob, "oss/b": bob}},
	} {
		owners["oss/a"], owners["oss/b"] = step.a, step.b
		if got := published(); !maps.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}
