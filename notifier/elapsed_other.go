//go:build !linux

package notifier

import "time"

// elapsed is the time since the process was started.
func elapsed() time.Duration { return time.Since(started) }

var started = time.Now()
