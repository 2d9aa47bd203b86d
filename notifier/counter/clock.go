package counter

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counter/steady"
)

// What is old by its date is dropped only while the clock is trusted: it is steady, and it
// agrees with the clock of Redis, if there is one. prune checks the clock about twice a day
// and stores the result, so a jump while the process is stopped is detected as well.

// maxClockOffset is the difference from the clock of Redis above which ours is not trusted.
const maxClockOffset = 24 * time.Hour

// clockTrusted updates the state of the clock and reports whether the clock is
// trusted.
func (c *Counter) clockTrusted() (bool, steady.State, error) {
	now := c.cfg.Now()
	c.mu.Lock()
	ahead, asked := c.publisher.clockAhead, c.publisher.clockCheckedAt
	c.mu.Unlock()
	raw, err := store.Read(c.db, []byte(clockKey))
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return false, steady.State{}, err
	}
	var s steady.State
	if err != nil || json.Unmarshal(raw, &s) != nil {
		s = steady.State{}
	}
	isSteady := s.Check(now)
	if raw, err = json.Marshal(s); err != nil {
		return false, s, err
	}
	if err := c.db.Set([]byte(clockKey), raw, pebble.NoSync); err != nil {
		return false, s, err
	}
	agreed := asked.IsZero() || ahead.Abs() <= maxClockOffset
	return agreed && isSteady, s, nil
}
