//go:build !linux

package process

import "time"

// CPU is implemented on Linux only and returns 0 elsewhere.
func (p *Process) CPU() time.Duration { return 0 }

// Memory is implemented on Linux only and returns 0 elsewhere.
func (p *Process) Memory() (current, peak int64) { return 0, 0 }
