//go:build !linux

package event

import "time"

// Elapsed is the time since the process was started.
func Elapsed() time.Duration { return time.Since(started) }

var started = time.Now()
