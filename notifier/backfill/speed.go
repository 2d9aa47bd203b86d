package backfill

import "time"

// speed measures how many manifests a second are recorded, over the last minutes.
type speed struct {
	marks []mark
}

type mark struct {
	at    time.Time
	count int64
}

const (
	markEvery = 5 * time.Second
	keptMarks = 60
)

// note notes a count.
func (s *speed) note(now time.Time, count int64) {
	if n := len(s.marks); n > 0 && now.Sub(s.marks[n-1].at) < markEvery {
		return
	}
	if len(s.marks) == keptMarks {
		s.marks = s.marks[1:]
	}
	s.marks = append(s.marks, mark{now, count})
}

// perSecond is the speed since the first count; 0 if it is not known yet.
func (s *speed) perSecond(now time.Time) float64 {
	if len(s.marks) < 2 {
		return 0
	}
	first, last := s.marks[0], s.marks[len(s.marks)-1]
	elapsed := now.Sub(first.at).Seconds()
	if elapsed < 1 {
		return 0
	}
	return float64(last.count-first.count) / elapsed
}
