package event

import (
	"time"

	"golang.org/x/sys/unix"
)

// Elapsed is the time since the system was started, including time in which it was
// suspended.
func Elapsed() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(started)
	}
	return time.Duration(ts.Nano())
}

var started = time.Now()
