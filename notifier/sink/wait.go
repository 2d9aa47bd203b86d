package sink

import (
	"context"
	"time"
)

// Pause returns after d, or when ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Pace lets others use the store between two batches of a long task.
func Pace(ctx context.Context) error {
	Pause(ctx, time.Millisecond)
	return ctx.Err()
}
