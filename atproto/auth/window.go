package auth

import (
	"sync"
	"time"
)

// windowCounter counts attempts in windows of a fixed length, in total and by key. It keeps
// at most total keys.
type windowCounter[K comparable] struct {
	window        time.Duration
	total, perKey int // limits in a window

	mu      sync.Mutex
	until   time.Time // end of the window
	counted int
	counts  map[K]int
}

// add counts an attempt. If it is over a limit, wait is the time until the window ends.
func (c *windowCounter[K]) add(k K, now time.Time) (wait time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !now.Before(c.until) || c.until.Sub(now) > c.window { // the latter after the clock was set back
		c.until, c.counted, c.counts = now.Add(c.window), 0, map[K]int{}
	}
	if c.counted >= c.total || c.counts[k] >= c.perKey {
		return c.until.Sub(now), false
	}
	c.counted++
	c.counts[k]++
	return 0, true
}
