package counter

import (
	"time"

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
	c.mu.Lock()
	ahead, asked := c.publisher.clockAhead, c.publisher.clockCheckedAt
	c.mu.Unlock()
	isSteady, s, err := steady.Check(c.db, []byte(clockKey), c.cfg.Now())
	agreed := asked.IsZero() || ahead.Abs() <= maxClockOffset
	return agreed && isSteady, s, err
}
