package counter

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

const (
	longestWait = 30 * time.Second // between two attempts while Redis is unavailable
	logEvery    = time.Minute      // between two messages while it is unavailable
	inspectGap  = time.Hour
	pruneGap    = 12 * time.Hour
)

// Run publishes at intervals, drops old counts, and checks whether Redis may lose data. It
// returns nil when ctx ends. While publishing fails, Run logs that and retries.
func (c *Counter) Run(ctx context.Context) error {
	defer c.release()
	var inspectAt, pruneAt, pruneRedisAt time.Time
	p := pace{c: c, wait: c.cfg.Interval}
	for {
		now := c.cfg.Now()
		if due(now, pruneAt, pruneGap) {
			if err := c.prune(); err != nil {
				c.log.Error("drop old counts", "error", err)
			}
			pruneAt = now.Add(pruneGap)
		}
		_, err := c.Publish(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && due(now, inspectAt, inspectGap) {
			err = c.inspect(ctx)
			inspectAt = now.Add(inspectGap)
		}
		if err == nil && c.redis != nil && due(now, pruneRedisAt, pruneGap) {
			if err := c.pruneRedis(ctx); err != nil {
				c.log.Warn("drop old data in Redis", "error", err)
			}
			pruneRedisAt = now.Add(pruneGap)
		}
		p.finished(now, err)
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-time.After(p.wait):
		}
	}
}

// due reports whether a time has come, or is further away than gap because the clock was
// set back.
func due(now, at time.Time, gap time.Duration) bool {
	until := at.Sub(now)
	return until <= 0 || until > gap
}

// pace is the time between rounds, and between messages while they fail.
type pace struct {
	c          *Counter
	wait       time.Duration // until the next round
	quietUntil time.Time
	failing    bool
}

// finished takes the result of a round that was started at now.
func (p *pace) finished(now time.Time, err error) {
	if err == nil {
		if p.failing {
			p.c.log.Info("publishing to Redis works again")
		}
		p.failing, p.wait, p.quietUntil = false, p.c.cfg.Interval, time.Time{}
		return
	}
	var damaged *rediscounts.DamagedError
	if errors.As(err, &damaged) || errors.Is(err, rediscounts.ErrChanged) || errors.Is(err, errUndecided) {
		p.wait = p.c.cfg.Interval
	} else {
		p.wait = min(max(2*p.wait, p.c.cfg.Interval), longestWait)
	}
	if due(now, p.quietUntil, logEvery) {
		p.c.log.Warn("publishing to Redis failed; counts stay pending on this disk", "error", err)
		p.failing, p.quietUntil = true, now.Add(logEvery)
	}
}
