package notifier

import (
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// tid is the timestamp identifier of a time in unix microseconds
// (https://atproto.com/specs/tid).
func tid(micros int64, clockID uint) string {
	return syntax.NewTID(micros, clockID).String()
}

// A clock hands out times for TIDs. It never gives one twice and never goes
// back, also when the machine's clock does: it starts after the last time that
// the journal has kept.
type clock struct {
	mu   sync.Mutex
	last int64 // unix microseconds
	now  func() time.Time
}

// reserve returns the first of n consecutive times, in unix microseconds.
func (c *clock) reserve(n int) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := max(c.now().UnixMicro(), c.last+1)
	c.last = first + int64(n) - 1
	return first
}
