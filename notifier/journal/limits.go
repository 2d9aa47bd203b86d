package journal

import "time"

// Defaults and limits of a Config. Sizes are in bytes.
const (
	DefaultSegmentSize = 16 << 20
	MinSegmentSize     = 4 << 20 // a larger event, of up to 8 MiB, gets a segment of its own
	MaxSegmentSize     = 1 << 30

	DefaultLimit = 1 << 30

	DefaultWait = 10 * time.Second
	MinWait     = 100 * time.Millisecond
	MaxWait     = 5 * time.Minute
)
