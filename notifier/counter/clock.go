package counter

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

const (
	clockSteadyFor = 48 * time.Hour     // without a jump, before the clock is trusted
	maxClockStep   = 7 * 24 * time.Hour // between two looks at it; more is a jump
	maxClockOffset = 24 * time.Hour     // between our clock and that of Redis
)

// steady is what is known of the clock.
type clockState struct {
	Since  time.Time // it has not jumped since
	Last   time.Time // it was looked at last
	Before time.Time // it jumped ahead then,
	Ahead  time.Time // to this time,
	Back   bool      // and has come back
}

func (s *clockState) look(now time.Time) {
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

// believe tells whether the clock can be trusted.
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
	s.look(now)
	if raw, err = json.Marshal(s); err != nil {
		return false, s, err
	}
	if err := c.db.Set([]byte(clockKey), raw, pebble.NoSync); err != nil {
		return false, s, err
	}
	agreed := asked.IsZero() || ahead.Abs() <= maxClockOffset
	return agreed && now.Sub(s.Since) >= clockSteadyFor, s, nil
}
