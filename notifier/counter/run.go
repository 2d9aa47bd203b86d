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
	var (
		wait             = c.cfg.Interval
		inspectAt, prune time.Time
		quietUntil       time.Time
		failing          bool
	)
	for {
		now := c.cfg.Now()
		if until := prune.Sub(now); until <= 0 || until > pruneGap {
			if err := c.prune(); err != nil {
				c.log.Error("drop old counts", "error", err)
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
		damaged := (*rediscounts.DamagedError)(nil)
		switch {
		case err == nil:
			if failing {
				c.log.Info("publishing to Redis works again")
			}
			failing, wait, quietUntil = false, c.cfg.Interval, time.Time{}
		case errors.As(err, &damaged), errors.Is(err, rediscounts.ErrChanged), errors.Is(err, errUndecided):
			wait = c.cfg.Interval
		default:
			wait = min(max(2*wait, c.cfg.Interval), longestWait)
		}
		if quiet := quietUntil.Sub(now); err != nil && (quiet <= 0 || quiet > logEvery) {
			c.log.Warn("publishing to Redis failed; counts stay pending on this disk", "error", err)
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
