package counter

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

// What is old by its date is dropped only while the clock is trusted: it has not jumped
// for clockSteadyFor, and it agrees with the clock of Redis, if there is one. prune checks
// the clock about twice a day and stores the result, so a jump while the process is stopped
// is detected as well.
const (
	clockSteadyFor = 48 * time.Hour     // time without a jump before the clock is trusted
	maxClockStep   = 7 * 24 * time.Hour // between two checks; more is a jump
	maxClockOffset = 24 * time.Hour     // between our clock and that of Redis
)

// clockState is what is known of the clock.
type clockState struct {
	Since  time.Time // it has not jumped since
	Last   time.Time // when it was last checked
	Before time.Time // its time before it jumped ahead; zero: it has not
	Ahead  time.Time // its time after that
	Back   bool      // it has jumped back to between Before and Ahead
}

func (s *clockState) update(now time.Time) {
	switch {
	case s.Last.IsZero():
		s.Since = now
	case now.Sub(s.Last) > maxClockStep:
		s.Since, s.Before, s.Ahead, s.Back = now, s.Last, now, false
	case now.Before(s.Last):
		s.Since = now
		if s.Back = !s.Back && !s.Before.IsZero() && !now.Before(s.Before) && now.Before(s.Ahead); !s.Back {
			s.Before = time.Time{}
		}
	}
	s.Last = now
}

// clockTrusted updates the state of the clock and reports whether the clock is
// trusted.
func (c *Counter) clockTrusted() (bool, clockState, error) {
	now := c.cfg.Now()
	c.mu.Lock()
	ahead, asked := c.publisher.clockAhead, c.publisher.clockCheckedAt
	c.mu.Unlock()
	raw, err := store.Read(c.db, []byte(clockKey))
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return false, clockState{}, err
	}
	var s clockState
	if err != nil || json.Unmarshal(raw, &s) != nil {
		s = clockState{}
	}
	s.update(now)
	if raw, err = json.Marshal(s); err != nil {
		return false, s, err
	}
	if err := c.db.Set([]byte(clockKey), raw, pebble.NoSync); err != nil {
		return false, s, err
	}
	agreed := asked.IsZero() || ahead.Abs() <= maxClockOffset
	return agreed && now.Sub(s.Since) >= clockSteadyFor, s, nil
}
