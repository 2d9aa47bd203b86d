package stats

import (
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// numbers are the counts by class in all responses. Pulls and pushes are also in Counts;
// they are separate members since most clients need only these.
type numbers struct {
	Pulls  int64                  `json:"pulls"`
	Pushes int64                  `json:"pushes"`
	Counts map[counts.Class]int64 `json:"counts"`
}

func numbersOf(c map[counts.Class]int64) numbers {
	return numbers{c[counts.Pull], c[counts.Push], c}
}

// totals are the numbers of a repository.
type totals struct {
	Name string `json:"name"`
	numbers
	LastPull *time.Time `json:"lastPull,omitempty"`
	LastPush *time.Time `json:"lastPush,omitempty"`
}

func totalsOf(t counts.Totals) totals {
	return totals{t.Name, numbersOf(t.Counts), timeOrNil(t.LastPull), timeOrNil(t.LastPush)}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
