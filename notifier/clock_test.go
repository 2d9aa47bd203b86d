package notifier

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/inbound"
)

const year = 365 * 24 * time.Hour

// Pushes are announced, have the time of the system clock and are counted today also after
// the clock was wrong by up to a year and was corrected.
func TestClockWrong(t *testing.T) {
	t.Parallel()
	for _, wrong := range []time.Duration{year, -year, time.Hour, -time.Hour, -3 * time.Minute} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprint(wrong, restart), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, shortWindows())
				m := clocktest.New()
				m.Real = true
				r.now, r.elapsed = m.Now, m.Elapsed
				push := func(seed string) {
					r.push(image(seed, 2).as("oss/app", "v"+seed))
				}
				r.reopen(shortWindows())
				push("1")
				r.drain()
				m.Set(wrong)
				push("2")
				r.drain()
				m.Set(-wrong)
				if restart {
					r.reopen(shortWindows())
				}
				push("3")
				r.drain()
				if posts := r.posts(); len(posts) != 3 {
					t.Errorf("%d posts, want 3", len(posts))
				}
				if got := len(r.records()); got != 6 {
					t.Errorf("%d records, want 6", got)
				}
				pushes, err := r.Pushes(1, true)
				if err != nil || len(pushes) != 1 || m.Now().Sub(pushes[0].Time).Abs() > time.Minute {
					t.Errorf("the last push is %+v, %v", pushes, err)
				}
				days, err := r.counter.Daily(t.Context(), "oss/app", 1)
				if err != nil || days[0].Counts[counts.Push] < 2 {
					t.Errorf("today has %+v, %v", days, err)
				}
				for _, h := range r.Health() {
					if h.Age > 60 {
						t.Errorf("health: %+v", h)
					}
				}
				if jump, ok := r.Jumped(); ok != !restart || ok && (jump.By+wrong).Abs() > time.Second {
					t.Errorf("health reports a jump of %+v, %v", jump, ok)
				}
				r.consistent()
			})
		}
	}
}

// The age of a push is right if the clock jumped between its time and its journal entry.
func TestClockJumpsDuringPush(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{year, -year} {
		r := newRig(t, shortWindows())
		m := clocktest.New()
		m.Real = true
		r.now, r.elapsed = m.Now, m.Elapsed
		r.reopen(shortWindows())
		in := r.intend(image("a", 1).as("oss/app", "v1"))
		r.storage.put(image("a", 1).as("oss/app", "v1"))
		e := &in.event
		e.TIDs = in.layers
		e.Time, e.TID, e.ClockID = r.clock.Reserve(1 + e.TIDs)
		m.Set(jump)
		if _, ok := r.Jumped(); !ok {
			t.Error("the jump was not detected")
		}
		if _, err := r.journal.Complete(t.Context(), in.entry, uint64(e.TID)+uint64(e.TIDs), e.EncodePushed(in.manifest)); err != nil {
			t.Fatal(err)
		}
		r.drain()
		if posts := r.posts(); len(posts) != 1 {
			t.Errorf("after a jump of %s: %d posts, want 1", jump, len(posts))
		}
	}
}

// A push that was recorded while the clock was ahead is announced by the next process at
// once.
func TestClockAheadBeforeRestart(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Collect = 100 * time.Millisecond
	r := newRig(t, announce)
	m := clocktest.New()
	m.Real = true
	r.now, r.elapsed = m.Now, m.Elapsed
	r.full.Store(true)
	r.reopen(announce)
	m.Set(year)
	r.push(image("a", 1).as("oss/app", "v1"))
	m.Set(-year)
	r.reopen(announce)
	r.full.Store(false)
	r.drain()
	if posts := r.posts(); len(posts) != 1 {
		t.Errorf("%d posts, want 1", len(posts))
	}
}

// The age of a pending push is the time that has passed, also if the clock jumps.
func TestClockJumpsWhilePending(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{year, -year} {
		announce := shortWindows()
		announce.Collect = 200 * time.Millisecond
		r := newRig(t, announce)
		m := clocktest.New()
		m.Real = true
		r.now, r.elapsed = m.Now, m.Elapsed
		r.reopen(announce)
		r.push(image("a", 1).as("oss/app", "v1"))
		m.Set(jump)
		r.drain()
		if posts := r.posts(); len(posts) != 1 {
			t.Errorf("after a jump of %s: %d posts, want 1", jump, len(posts))
		}
	}
}

// A token is valid once, however the clock jumps between two uses.
func TestClockTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := clocktest.New()
	r.now, r.elapsed = m.Now, m.Elapsed
	r.reopen(nil)
	n := notificationOf(image("a", 1).as("oss/app", "v1"), alice)
	m.Set(year)
	r.notifyCanceled(n)
	r.drain()
	for _, by := range []time.Duration{0, -year, 8 * 24 * time.Hour, -2 * year, year} {
		m.Set(by)
		for range 2 {
			if _, err := r.Notify(t.Context(), inbound.Notification(n)); err != inbound.ErrTokenUsed {
				t.Errorf("after %s: %v", by, err)
			}
			r.reopen(nil)
		}
	}
	if got := len(r.list(lexicon.NSIDLayer)); got != 1 {
		t.Errorf("%d records", got)
	}
}

// A sink is behind when its oldest event has been pending for long. Jumps of the clock do
// not matter, and the time in which tags are collected is not included.
func TestHealthState(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Collect, announce.MaxAge = 20*time.Minute, time.Hour
	r := newRig(t, announce)
	m := clocktest.New()
	r.now, r.elapsed = m.Now, m.Elapsed
	r.reopen(announce)
	r.stopSinks()
	r.push(image("a", 1).as("oss/app", "v1"))
	for _, step := range []struct {
		pass time.Duration
		set  bool
		want map[string]string
	}{
		{14 * time.Minute, false, map[string]string{"records": sinkOK, "announce": sinkOK, "counters": sinkOK}},
		{0, true, map[string]string{"records": sinkOK, "announce": sinkOK, "counters": sinkOK}},
		{2 * time.Minute, false, map[string]string{"records": sinkBehind, "announce": sinkOK, "counters": sinkBehind}},
		{20 * time.Minute, false, map[string]string{"records": sinkBehind, "announce": sinkBehind, "counters": sinkBehind}},
	} {
		m.Pass(step.pass)
		if step.set {
			m.Set(48 * time.Hour)
		}
		for _, h := range r.Health() {
			if want := step.want[h.Sink]; h.Stream == "pushes" && h.State != want {
				t.Errorf("after %s more: %s is %s, want %s (%+v)", step.pass, h.Sink, h.State, want, *h.Backlog)
			}
		}
	}
}
