package repo

import (
	"sync"
	"time"
)

// relayLimits is what indigo's relay takes from a host that it doesn't know,
// in events. Above it the relay reads no more of the stream for a while.
var relayLimits = []limit{
	{time.Second, 50},
	{time.Hour, 2600},
	{24 * time.Hour, 21_000},
}

type limit struct {
	window time.Duration
	events int
}

// rate counts events and says when the next should come so that no limit is
// passed: at once while less than half of each is used, and from then on so far
// apart that the other half lasts for the window.
type rate struct {
	mu     sync.Mutex
	counts []windowCount
	last   time.Time
}

// rateSlots divide a window; what is counted is up to a slot older than it.
const rateSlots = 60

type windowCount struct {
	limit
	slot [rateSlots]int64 // which slot of time it counts
	n    [rateSlots]int
}

func newRate(limits []limit) *rate {
	r := &rate{counts: make([]windowCount, len(limits))}
	for i, l := range limits {
		r.counts[i].limit = l
	}
	return r
}

// add counts an event.
func (r *rate) add(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = now
	for i := range r.counts {
		c := &r.counts[i]
		slot := c.at(now)
		if at := slot % rateSlots; c.slot[at] == slot {
			c.n[at]++
		} else {
			c.slot[at], c.n[at] = slot, 1
		}
	}
}

func (c *windowCount) at(now time.Time) int64 { return now.UnixNano() / int64(c.window/rateSlots) }

func (c *windowCount) sum(now time.Time) (n int) {
	slot := c.at(now)
	for i := range c.n {
		if c.slot[i] >= slot-rateSlots {
			n += c.n[i]
		}
	}
	return n
}

// wait is how long the next event should wait.
func (r *rate) wait(now time.Time) (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.counts {
		c := &r.counts[i]
		if half := c.events / 2; c.sum(now) >= half {
			wait = max(wait, r.last.Add(c.window/time.Duration(half)).Sub(now))
		}
	}
	return wait
}
