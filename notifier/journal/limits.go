package journal

import "time"

// Defaults and limits of a Config. Sizes are in bytes.
const (
	DefaultSegmentSize = 16 << 20
	MinSegmentSize     = 4 << 20 // an event may have 8 MiB, and has a segment of its own then
	MaxSegmentSize     = 1 << 30

	DefaultLimit = 1 << 30

	DefaultWait = 10 * time.Second
	MinWait     = 100 * time.Millisecond
	MaxWait     = 5 * time.Minute
)
