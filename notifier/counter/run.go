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

// Run publishes every so often, drops days that are too old, and asks Redis
// whether it may forget, until ctx ends; then it returns nil. Redis being away
// is logged, waited for, and never ends Run.
func (c *Counter) Run(ctx context.Context) error {
	var (
		wait             = c.cfg.Every
		inspectAt, prune time.Time
		quietUntil       time.Time
		failing          bool
	)
	for {
		now := c.cfg.Now()
		if !now.Before(prune) {
			if err := c.Prune(); err != nil {
				c.log.Error("old days can't be dropped", "err", err)
			}
			prune = now.Add(pruneGap)
		}
		_, err := c.Publish(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && !now.Before(inspectAt) {
			err = c.inspect(ctx)
			inspectAt = now.Add(inspectGap)
		}
		damaged := (*DamagedError)(nil)
		switch {
		case err == nil:
			if failing {
				c.log.Info("Redis takes numbers again")
			}
			failing, wait, quietUntil = false, c.cfg.Every, time.Time{}
		case errors.As(err, &damaged):
			wait = c.cfg.Every
		default:
			wait = min(max(2*wait, c.cfg.Every), longestWait)
		}
		if err != nil && !now.Before(quietUntil) {
			c.log.Warn("numbers wait on this disk, since Redis does not take them", "err", err)
			failing, quietUntil = true, now.Add(logEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
