package notifier

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Order and time are two things. TIDs order what the sinks make and must never
// repeat; they come from a clock that does not go back. The time of an event is
// the machine's own and is used for everything that a person reads or that is
// measured in minutes: windows, ages, days.
//
// A machine's clock can jump. If it went back, TIDs go on after the last one
// given, up to maxAhead of the clock; beyond that they begin again at the clock's
// time under another clock id, so that none is made twice. Ages are corrected
// by the jumps that this process has seen since the event. Jumps between two
// processes are not seen, but an event of an earlier process is at least as old
// as this one.

const (
	maxAhead  = 5 * time.Minute // how far TIDs may be ahead of the machine's clock
	minJump   = 2 * time.Second // a smaller change is drift or a slow look
	keptJumps = 16
)

// tid is the timestamp identifier of a time in unix microseconds
// (https://atproto.com/specs/tid).
func tid(micros int64, clockID uint) string {
	return syntax.NewTID(micros, clockID).String()
}

// A Jump is a change of the machine's clock that was not the passing of time.
type Jump struct {
	At time.Time     `json:"at"` // by the clock after the jump
	By time.Duration `json:"by"` // in nanoseconds; negative: the clock went back
}

// clock gives TIDs, times and ages. It is safe for concurrent use.
type clock struct {
	now     func() time.Time
	elapsed func() time.Duration // goes on at one pace whatever happens to now
	log     *slog.Logger

	mu     sync.Mutex
	id     uint
	last   int64         // unix microseconds of the last TID given
	ids    []uint        // clock ids that this process has used before id
	begun  time.Duration // elapsed when this process began
	start  int64         // last when it did
	offset time.Duration // now less elapsed at the last look; 0: not looked yet
	jumps  []seenJump
}

// newClock goes on after the last TID, in unix microseconds, that an earlier
// process has given under the clock id.
func newClock(now func() time.Time, elapsed func() time.Duration, id uint, last int64, log *slog.Logger) *clock {
	return &clock{now: now, elapsed: elapsed, log: log, id: id, last: last, start: last, begun: elapsed()}
}

type seenJump struct {
	Jump
	ids  int   // how many clock ids were used before that of the jump
	last int64 // last TID that was given before it
}

// A stamp is what the clock knows an event by.
type stamp struct {
	at  time.Time // by the machine's clock
	tid int64     // unix microseconds
	id  uint
}

// reserve gives the machine's time and n consecutive TIDs, which begin at first
// (unix microseconds) under the clock id.
func (c *clock) reserve(n int) (now time.Time, first int64, id uint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now = c.look()
	micros := now.UnixMicro()
	if ahead := time.Duration(c.last-micros) * time.Microsecond; ahead > maxAhead {
		c.log.Warn("record keys are ahead of the machine's clock, which was ahead for a while; new keys begin at its time again", "ahead", ahead.Round(time.Second))
		c.ids = append(c.ids, c.id)
		c.id = otherClockID(c.ids)
		c.last = 0
	}
	first = max(micros, c.last+1)
	c.last = first + int64(n) - 1
	return now, first, c.id
}

// otherClockID returns one that is not among the last of those that were used.
func otherClockID(used []uint) uint {
	used = used[max(0, len(used)-512):]
	for {
		if id := rand.UintN(1024); !slices.Contains(used, id) {
			return id
		}
	}
}

// age is how long ago an event was recorded, never negative.
func (c *clock) age(of stamp) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := c.look().Sub(of.at)
	used, own := c.used(of)
	for _, j := range c.jumps {
		if used < j.ids || used == j.ids && of.tid <= j.last {
			age -= j.By
		}
	}
	if !own {
		age = max(age, c.elapsed()-c.begun)
	}
	return max(age, 0)
}

// used says how many clock ids this process had used before that of an event; 0
// and false if the event is of an earlier process. The caller must hold mu.
func (c *clock) used(of stamp) (ids int, own bool) {
	ids = len(c.ids)
	if of.id != c.id {
		ids = slices.Index(c.ids, of.id)
	}
	if ids < 0 || ids == 0 && of.tid <= c.start {
		return 0, false
	}
	return ids, true
}

// jumped gives the last jump that this process has seen; false: none.
func (c *clock) jumped() (Jump, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	if len(c.jumps) == 0 {
		return Jump{}, false
	}
	return c.jumps[len(c.jumps)-1].Jump, true
}

// look gives the machine's time and notes a jump. The caller must hold mu.
func (c *clock) look() time.Time {
	before := c.elapsed()
	now := c.now().Round(0)
	after := c.elapsed()
	if after-before > minJump/2 {
		return now // the process was stopped in between
	}
	offset := time.Duration(now.UnixNano()) - after
	by := offset - c.offset
	looked := c.offset != 0
	c.offset = offset
	if !looked || by.Abs() < minJump {
		return now
	}
	c.jumps = append(c.jumps, seenJump{Jump{now.UTC(), by}, len(c.ids), c.last})
	if len(c.jumps) > keptJumps {
		c.jumps = c.jumps[1:]
	}
	c.log.Warn("the machine's clock has jumped", "by", by.Round(time.Millisecond), "to", now.UTC())
	return now
}
