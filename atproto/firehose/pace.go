package firehose

import "time"

// Slow defines which subscribers are too slow: those that are further behind than
// Behind during a whole Window, and read less than Rate. A subscriber that is far behind
// but catches up is not too slow, nor is one that reads little but keeps up.
type Slow struct {
	Behind time.Duration // age of the event at its cursor; 0: 10 minutes
	Rate   int64         // bytes a second; 0: 1024
	Window time.Duration // 0: 1 minute
}

func (s Slow) withDefaults() Slow {
	if s.Behind == 0 {
		s.Behind = 10 * time.Minute
	}
	if s.Rate == 0 {
		s.Rate = 1 << 10
	}
	if s.Window == 0 {
		s.Window = time.Minute
	}
	return s
}

// pace measures how fast one subscriber reads.
type pace struct {
	limit Slow
	since time.Time // start of the window; zero: it is not far behind
	bytes int64     // read in the window
}

// tooSlow records a message that was sent, with its size and the age of its event, and
// reports whether the subscriber is too slow.
func (p *pace) tooSlow(now time.Time, size int, behind time.Duration) bool {
	if behind < p.limit.Behind {
		p.since = time.Time{}
		return false
	}
	if p.since.IsZero() {
		p.since, p.bytes = now, 0
		return false
	}
	p.bytes += int64(size)
	length := now.Sub(p.since)
	if length < p.limit.Window {
		return false
	}
	slow := float64(p.bytes) < float64(p.limit.Rate)*length.Seconds()
	p.since, p.bytes = now, 0
	return slow
}
