package runner

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
)

var errFault = errors.New("the connection broke")

// A sink that is paused tries again when the pause ends, and at least once a minute; without
// an end it waits as after other errors.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err         error
		before      int           // earlier errors
		least, most time.Duration // of waiting
	}{
		"an end soon":        {&pds.Error{Outcome: pds.Limited, Until: epoch.Add(5 * time.Second)}, 0, 5 * time.Second, 5 * time.Second},
		"an end later":       {&pds.Error{Outcome: pds.Limited, Until: epoch.Add(time.Hour)}, 0, time.Minute, time.Minute},
		"no end":             {&pds.Error{Outcome: pds.Suspended}, 0, time.Second / 2, time.Second},
		"an end in the past": {&pds.Error{Outcome: pds.Limited, Until: epoch.Add(-time.Hour)}, 0, time.Second / 2, time.Second},
		"another error":      {errFault, 0, time.Second / 2, time.Second},
		"a fourth error":     {errFault, 3, 4 * time.Second, 8 * time.Second},
		"many errors":        {errFault, 30, 30 * time.Second, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRunner(t, &bytes.Buffer{})
				b := r.NewBackoff("records")
				for range test.before {
					b.Sleep(t.Context(), errFault)
				}
				r.Now = func() time.Time { return epoch }
				begun := time.Now()
				b.Sleep(t.Context(), test.err)
				if waited := time.Since(begun); waited < test.least || waited > test.most {
					t.Errorf("waited %s, want %s to %s", waited, test.least, test.most)
				}
				b.Reset()
				begun = time.Now()
				b.Sleep(t.Context(), errFault)
				if waited := time.Since(begun); waited > time.Second {
					t.Errorf("after a success it waits %s", waited)
				}
				stopped, stop := context.WithCancel(t.Context())
				stop()
				begun = time.Now()
				b.Sleep(stopped, test.err)
				if waited := time.Since(begun); waited != 0 {
					t.Errorf("after the end it waits %s", waited)
				}
			})
		})
	}
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// The begin of a pause is logged once with its reason, and so is its end.
func TestPauseLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := newRunner(t, &log).NewBackoff("records")
		want := func(what string, times int) {
			t.Helper()
			if got := strings.Count(log.String(), what); got != times {
				t.Errorf("%q is logged %d times, want %d:\n%s", what, got, times, log.String())
			}
		}
		b.Reset()
		want("continues", 0)
		for range 10 {
			b.Sleep(t.Context(), &pds.Error{Outcome: pds.Limited, Planned: true, Until: time.Now().Add(time.Second), Err: errors.New("the hold may still be processing a call")})
		}
		want("level=INFO msg=\"a sink waits", 1)
		want("level=WARN", 0)
		for range 10 {
			b.Sleep(t.Context(), &pds.Error{Outcome: pds.Limited, Until: time.Now().Add(time.Hour), Err: errors.New("4500 of 4500 points are spent")})
		}
		want("is paused", 1)
		want("4500 of 4500 points", 1)
		want("sink=records", 2)
		for range 10 {
			b.Sleep(t.Context(), &pds.Error{Outcome: pds.Suspended, Err: errors.New("the account is deactivated")})
		}
		want("is paused", 2)
		want("the account is deactivated", 1)
		for range 10 {
			b.Sleep(t.Context(), &pds.Error{Outcome: pds.Suspended, Name: "AccountTakedown", Err: errors.New("the account is taken down")})
		}
		want("is paused", 3)
		want("the account is taken down", 1)
		b.Reset()
		b.Reset()
		want("continues", 1)
		b.Sleep(t.Context(), errFault)
		want("is paused", 3)
		want("trying again", 1)
	})
}

// A pause ends soon after the clock was set to a time after its end.
func TestPauseEndsByTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		r := newRunner(t, &bytes.Buffer{})
		r.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		time.AfterFunc(2*time.Second, func() { ahead.Store(int64(time.Minute)) })
		begun := time.Now()
		r.NewBackoff("records").Sleep(t.Context(), &pds.Error{Outcome: pds.Limited, Until: begun.Add(30 * time.Second)})
		if took := time.Since(begun); took < 2*time.Second || took > 2*time.Second+clockCheck {
			t.Errorf("the pause took %s, want 2s", took)
		}
	})
}

// A pause of hours is interrupted each minute: an operator may have written a new password.
func TestLongPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		newRunner(t, &bytes.Buffer{}).NewBackoff("records").Sleep(t.Context(), &pds.Error{Outcome: pds.Suspended, Until: begun.Add(6 * time.Hour)})
		if took := time.Since(begun); took < time.Minute-time.Second || took > time.Minute+clockCheck {
			t.Errorf("the sink tries again after %s, want a minute", took)
		}
	})
}
