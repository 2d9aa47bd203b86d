package counter

import (
	"context"
	"errors"
	"time"
)

const (
	longestWait = 30 * time.Second // between two tries while Redis is away
	logEvery    = time.Minute      // while it stays away
	inspectGap  = time.Hour
	pruneGap    = 12 * time.Hour
)

// Run publishes every so often, drops what is too old, and asks Redis whether it
// may forget, until ctx ends; then it returns nil. Redis being away is logged,
// waited for, and never ends Run.
func (c *Counter) Run(ctx context.Context) error {
	defer c.release()
	var (
		wait             = c.cfg.Interval
		inspectAt, prune time.Time
		quietUntil       time.Time
		failing          bool
	)
	for {
		now := c.cfg.Now()
		if until := prune.Sub(now); until <= 0 || until > pruneGap {
			if err := c.Prune(); err != nil {
				c.log.Error("old days can't be dropped", "err", err)
			}
			prune = now.Add(pruneGap)
		}
		_, err := c.Publish(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if until := inspectAt.Sub(now); err == nil && (until <= 0 || until > inspectGap) {
			err = c.inspect(ctx)
			inspectAt = now.Add(inspectGap)
		}
		damaged := (*DamagedError)(nil)
		switch {
		case err == nil:
			if failing {
				c.log.Info("Redis takes numbers again")
			}
			failing, wait, quietUntil = false, c.cfg.Interval, time.Time{}
		case errors.As(err, &damaged), errors.Is(err, errLost), errors.Is(err, errUndecided):
			wait = c.cfg.Interval
		default:
			wait = min(max(2*wait, c.cfg.Interval), longestWait)
		}
		if quiet := quietUntil.Sub(now); err != nil && (quiet <= 0 || quiet > logEvery) {
			c.log.Warn("numbers wait on this disk, since Redis does not take them", "err", err)
			failing, quietUntil = true, now.Add(logEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-time.After(wait):
		}
	}
}
