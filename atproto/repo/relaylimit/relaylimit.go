// Package relaylimit keeps the events of an account within the rate that relays
// accept.
package relaylimit

import (
	"sync"
	"time"
)

// limits is how many events indigo's relay accepts from a host that it doesn't
// trust. Above a limit it pauses reading the stream.
var limits = []limit{
	{time.Second, 50},
	{time.Hour, 2600},
	{24 * time.Hour, 21_000},
}

type limit struct {
	window time.Duration
	events int
}

// Rate counts events and spaces them so that no limit is exceeded: there is no
// delay while less than half of each limit is used, and above that events are so
// far apart that the other half lasts for the window.
type Rate struct {
	mu     sync.Mutex
	counts []windowCount
	last   time.Time
}

// slots divide a window; counted events are up to a slot older than it.
const slots = 60

type windowCount struct {
	limit
	slot [slots]int64 // the slot of time that n counts
	n    [slots]int
}

// New returns a Rate of no events.
func New() *Rate {
	r := &Rate{counts: make([]windowCount, len(limits))}
	for i, l := range limits {
		r.counts[i].limit = l
	}
	return r
}

// Add counts an event.
func (r *Rate) Add(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = now
	for i := range r.counts {
		c := &r.counts[i]
		slot := c.at(now)
		if at := slot % slots; c.slot[at] == slot {
			c.n[at]++
		} else {
			c.slot[at], c.n[at] = slot, 1
		}
	}
}

func (c *windowCount) at(now time.Time) int64 { return now.UnixNano() / int64(c.window/slots) }

func (c *windowCount) sum(now time.Time) (n int) {
	slot := c.at(now)
	for i := range c.n {
		if c.slot[i] >= slot-slots {
			n += c.n[i]
		}
	}
	return n
}

// Delay returns how long the next event should be delayed.
func (r *Rate) Delay(now time.Time) (delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.counts {
		c := &r.counts[i]
		if half := c.events / 2; c.sum(now) >= half {
			delay = max(delay, r.last.Add(c.window/time.Duration(half)).Sub(now))
		}
	}
	return delay
}
