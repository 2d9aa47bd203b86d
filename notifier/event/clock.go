package event

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// An event has a TID and a time. TIDs order records and posts and must be unique: they
// come from a clock that never goes back. The time is that of the system clock, and is
// used for windows, ages and days, and shown to people.
//
// The system clock can jump. If it goes back, TIDs continue after the last one up to
// MaxAhead of the clock; beyond that they start again at the clock's time with another
// clock id, so that they stay unique. Ages are corrected by the jumps that this process
// has detected since the event. Jumps between two processes are not detected, but an
// event of an earlier process is at least as old as this process.

const (
	MaxAhead  = 5 * time.Minute // how far TIDs may be ahead of the system clock
	MinJump   = 2 * time.Second // smaller changes are drift, or a slow reading
	keptJumps = 16
)

// TID is the TID of a time in unix microseconds (https://atproto.com/specs/tid).
func TID(micros int64, clockID uint) string {
	return syntax.NewTID(micros, clockID).String()
}

// A Jump is a change of the system clock other than the passing of time.
type Jump struct {
	At time.Time     `json:"at"` // by the clock after the jump
	By time.Duration `json:"by"` // in nanoseconds; negative: the clock went back
}

// Clock issues TIDs, times and ages. It is safe for concurrent use.
type Clock struct {
	now     func() time.Time
	elapsed func() time.Duration // monotonic
	log     *slog.Logger

	mu     sync.Mutex
	id     uint
	last   int64         // unix microseconds of the last TID
	ids    []uint        // clock ids that this process has used before id
	begun  time.Duration // elapsed when this process began
	start  int64         // last when this process began
	offset time.Duration // now minus elapsed at the last reading; 0: not read yet
	jumps  []seenJump
}

// NewClock returns a clock that continues after the last TID of an earlier process with
// the clock id, in unix microseconds.
func NewClock(now func() time.Time, elapsed func() time.Duration, id uint, last int64, log *slog.Logger) *Clock {
	return &Clock{now: now, elapsed: elapsed, log: log, id: id, last: last, start: last, begun: elapsed()}
}

// Continue lets the clock continue after a TID that an earlier process has used without an event
// in the journal, with its clock id.
func (c *Clock) Continue(last int64, id uint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == c.id && last > c.last {
		c.last, c.start = last, last
	}
}

type seenJump struct {
	Jump
	ids  int   // number of clock ids that were used before that of the jump
	last int64 // last TID before the jump
}

// A Stamp is what of an event determines its age.
type Stamp struct {
	At  time.Time // of the system clock
	TID int64     // unix microseconds
	ID  uint      // of the clock
}

// Reserve returns the time of the system clock, and the first of n consecutive TIDs in
// unix microseconds and their clock id.
func (c *Clock) Reserve(n int) (now time.Time, first int64, id uint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now = c.read()
	micros := now.UnixMicro()
	if ahead := time.Duration(c.last-micros) * time.Microsecond; ahead > MaxAhead {
		c.log.Warn("record keys are ahead of the system clock, which was ahead for a while; new keys start at its time again", "ahead", ahead.Round(time.Second))
		c.ids = append(c.ids, c.id)
		c.id = otherClockID(c.ids)
		c.last = 0
	}
	first = max(micros, c.last+1)
	c.last = first + int64(n) - 1
	return now, first, c.id
}

// otherClockID returns a clock id that is not among the last ones used.
func otherClockID(used []uint) uint {
	used = used[max(0, len(used)-512):]
	for {
		if id := rand.UintN(1024); !slices.Contains(used, id) {
			return id
		}
	}
}

// Age is how long ago an event was recorded, never negative.
func (c *Clock) Age(of Stamp) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := c.read().Sub(of.At)
	used, own := c.used(of)
	for _, j := range c.jumps {
		if used < j.ids || used == j.ids && of.TID <= j.last {
			age -= j.By
		}
	}
	if !own {
		age = max(age, c.elapsed()-c.begun)
	}
	return max(age, 0)
}

// used returns how many clock ids this process had used before that of an event; 0 and
// false if the event is of an earlier process. The caller holds mu.
func (c *Clock) used(of Stamp) (ids int, own bool) {
	ids = len(c.ids)
	if of.ID != c.id {
		ids = slices.Index(c.ids, of.ID)
	}
	if ids < 0 || ids == 0 && of.TID <= c.start {
		return 0, false
	}
	return ids, true
}

// Jumped returns the last jump that this process has detected; false if there was none.
func (c *Clock) Jumped() (Jump, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read()
	if len(c.jumps) == 0 {
		return Jump{}, false
	}
	return c.jumps[len(c.jumps)-1].Jump, true
}

// read returns the time of the system clock, and detects a jump. The caller holds mu.
func (c *Clock) read() time.Time {
	before := c.elapsed()
	now := c.now().Round(0)
	after := c.elapsed()
	if after-before > MinJump/2 {
		return now // the process was suspended in between
	}
	offset := time.Duration(now.UnixNano()) - after
	by := offset - c.offset
	known := c.offset != 0
	c.offset = offset
	if !known || by.Abs() < MinJump {
		return now
	}
	c.jumps = append(c.jumps, seenJump{Jump{now.UTC(), by}, len(c.ids), c.last})
	if len(c.jumps) > keptJumps {
		c.jumps = c.jumps[1:]
	}
	c.log.Warn("the system clock has jumped", "by", by.Round(time.Millisecond), "to", now.UTC())
	return now
}
