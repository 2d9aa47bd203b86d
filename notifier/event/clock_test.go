package event

import (
	"log/slog"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/clock/clocktest"
)

const year = 365 * 24 * time.Hour

// TIDs are unique, times are those of the system clock, and ages are the time that has
// passed, however the clock jumps.
func TestClock(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{year, -year, 10 * time.Minute, -10 * time.Minute, -time.Minute, 3 * time.Second, time.Second} {
		t.Run(jump.String(), func(t *testing.T) {
			t.Parallel()
			m := clocktest.New()
			c := NewClock(m.Now, m.Elapsed, 7, 0, slog.New(slog.DiscardHandler))
			issued := map[string]bool{}
			var stamps []Stamp
			record := func() {
				now, first, id := c.Reserve(100)
				stamps = append(stamps, Stamp{now, first, id})
				for i := range int64(100) {
					if key := TID(first+i, id); issued[key] {
						t.Fatalf("%s is issued twice", key)
					} else {
						issued[key] = true
					}
				}
				if ahead := time.UnixMicro(first).Sub(m.Now()); ahead > MaxAhead {
					t.Errorf("keys are %s ahead", ahead)
				}
			}
			for range 3 { // there and back, three times
				for _, by := range []time.Duration{jump, -jump} {
					record()
					record()
					m.Pass(time.Minute)
					record()
					m.Set(by)
					record()
					m.Pass(time.Second)
				}
			}
			if got, want := c.Age(stamps[len(stamps)-2]), time.Second; jump.Abs() >= MinJump && got != want {
				t.Errorf("the last event before the last jump is %s old, want %s", got, want)
			}
			if got, want := c.Age(stamps[0]), 6*61*time.Second; jump.Abs() >= MinJump && got != want {
				t.Errorf("the first event is %s old, want %s", got, want)
			}
			seen, ok := c.Jumped()
			if ok != (jump.Abs() >= MinJump) || ok && seen.By != -jump {
				t.Errorf("detected %+v, %v; the last was %s", seen, ok, -jump)
			}
		})
	}
}

// A process that is suspended while it reads the clock detects no jump.
func TestClockSuspended(t *testing.T) {
	t.Parallel()
	m := clocktest.New()
	suspended := true
	now := func() time.Time {
		if suspended {
			defer m.Pass(time.Hour)
		}
		return m.Now()
	}
	c := NewClock(now, m.Elapsed, 7, 0, slog.New(slog.DiscardHandler))
	for range 10 {
		c.Reserve(1)
		suspended = !suspended
	}
	if jump, ok := c.Jumped(); ok {
		t.Errorf("detected %+v", jump)
	}
}

// Events of an earlier process are at least as old as this process, and the jumps that it
// detects do not change that.
func TestClockEarlier(t *testing.T) {
	t.Parallel()
	m := clocktest.New()
	earlier := NewClock(m.Now, m.Elapsed, 7, 0, slog.New(slog.DiscardHandler))
	reserve := func(c *Clock) Stamp {
		at, first, id := c.Reserve(1)
		return Stamp{at, first, id}
	}
	right := reserve(earlier)
	m.Set(year)
	ahead := reserve(earlier)
	m.Set(-year)
	behind := reserve(earlier) // with another clock id
	c := NewClock(m.Now, m.Elapsed, 7, ahead.TID, slog.New(slog.DiscardHandler))
	own := reserve(c)
	for range 3 {
		m.Pass(time.Minute)
		m.Set(-time.Hour)
		c.Jumped()
		m.Set(time.Hour)
	}
	for _, of := range []Stamp{right, ahead, behind, own} {
		if got := c.Age(of); got != 3*time.Minute {
			t.Errorf("%+v is %s old, want 3m", of, got)
		}
	}
}
