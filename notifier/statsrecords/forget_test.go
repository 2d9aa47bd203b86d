package statsrecords

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/forgotten"
	"github.com/tidings-dev/tidings/notifier/state"
)

// forgets has the data of an owner deleted by an event.
func (r *rig) forgets(owner string, seq uint64) {
	r.t.Helper()
	var b state.Batch
	if err := r.forgotten.PutPendingStats(&b, forgotten.PendingStats{Owner: owner, Seq: seq}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cfg.State.Commit(&b, state.Sync); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wantOwned(owner string, want int) {
	r.t.Helper()
	if got, err := Owned(r.cfg.State, owner); got != want || err != nil {
		r.t.Errorf("%s has %d records, %v, want %d", owner, got, err, want)
	}
}

// The records of an owner are deleted once earlier pushes are counted, and later ones have
// what was counted since, whatever call fails and wherever the process ends.
func TestForget(t *testing.T) {
	t.Parallel()
	for _, faults := range [][]fault{nil, {lostRequest}, {lostAnswer}, {lostRequest, lostAnswer}} {
		t.Run(fmt.Sprint(faults), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			counted := uint64(6)
			r.cfg.Counted = func() uint64 { return counted }
			r.restart()
			for i := range 3 {
				r.counts.set(fmt.Sprintf("%s/app%d", bob, i), 10, 2)
			}
			r.counts.set("oss/app", 5, 1)
			r.round()
			r.wantOwned(bob, 3)
			r.wantOwned(owner, 1)
			all := []string{bob + "/app0 10 2", bob + "/app1 10 2", bob + "/app2 10 2", "oss/app 5 1"}
			r.want(all...)

			r.forgets(bob, 7)
			if err := r.Round(t.Context()); err != errUncounted {
				t.Errorf("before the pushes are counted: %v", err)
			}
			r.want(all...)
			r.counts.set(bob+"/app0", 11, 3)
			counted = 7
			r.account.fail(faults...)
			for range faults {
				if err := r.Round(t.Context()); err == nil {
					t.Error("no error")
				}
				r.counts.set(bob+"/app1", 12, 2) // counted after the counts were noted
				r.restart()
			}
			r.round()
			left := []string{"oss/app 5 1"}
			if len(faults) > 0 {
				left = []string{bob + "/app1 2 0", "oss/app 5 1"}
			}
			r.want(left...)
			r.wantOwned(bob, len(left)-1)

			r.counts.set(bob+"/app0", 14, 3)
			r.counts.set("oss/app", 6, 1)
			r.restart()
			r.round()
			r.want(append([]string{bob + "/app0 3 0"}, append(left[:len(left)-1:len(left)-1], "oss/app 6 1")...)...)
		})
	}
}

// Run deletes without waiting for the next round.
func TestForgetInRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set(bob+"/app", 10, 2)
	r.round()
	wake, calls := make(chan struct{}), 0
	r.cfg.Forgotten = func() <-chan struct{} {
		if calls++; calls == 1 {
			return wake
		}
		return nil
	}
	r.restart()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	r.forgets(bob, 1)
	close(wake)
	for end := time.Now().Add(10 * time.Second); len(r.records()) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	r.want()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// While nothing is published, records are deleted and none is written.
func TestForgetOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.counts.set(bob+"/app", 10, 2)
	r.counts.set("oss/app", 5, 1)
	r.round()
	r.cfg.Off = true
	r.restart()
	r.now = r.now.Add(DefaultInterval)
	r.counts.set("oss/app", 6, 1)
	r.forgets(bob, 1)
	if wait, err := r.next(t.Context()); wait != longestWait || err != nil {
		t.Errorf("wait %v, %v", wait, err)
	}
	r.want("oss/app 5 1")
}

// A record after a deletion has no times from before it, and a lower count begins again.
func TestWithout(t *testing.T) {
	t.Parallel()
	early, late := time.Unix(1_800_000_000, 0), time.Unix(1_800_000_100, 0)
	totals := func(pulls int64, pull, push time.Time) counts.Totals {
		return counts.Totals{Counts: map[counts.Class]int64{counts.Pull: pulls, counts.Push: 1}, LastPull: pull, LastPush: push}
	}
	earlier := countsOf(totals(5, early, early), bob, "app")
	for _, test := range []struct {
		now          counts.Totals
		pulls        int64
		pulled, push bool
	}{
		{totals(5, early, early), 0, false, false},
		{totals(8, late, early), 3, true, false},
		{totals(8, late, late), 3, true, true},
		{totals(2, early, early), 0, false, false},
		{totals(0, time.Time{}, time.Time{}), 0, false, false},
	} {
		got := without(countsOf(test.now, bob, "app"), earlier)
		if got.PullCount != test.pulls || got.PushCount != 0 || (got.LastPull != "") != test.pulled || (got.LastPush != "") != test.push {
			t.Errorf("%+v: got %+v", test.now, got)
		}
	}
}
