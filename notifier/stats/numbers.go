package stats

import (
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// numbers are the counts of a repository in all responses. Pulls and pushes are also
// in Counts; they are separate members since most clients need only these.
type numbers struct {
	Name     string                 `json:"name"`
	Pulls    int64                  `json:"pulls"`
	Pushes   int64                  `json:"pushes"`
	Counts   map[counts.Class]int64 `json:"counts"`
	LastPull *time.Time             `json:"lastPull,omitempty"`
	LastPush *time.Time             `json:"lastPush,omitempty"`
}

func numbersOf(t counts.Totals) numbers {
	return numbers{
		Name:     t.Name,
		Pulls:    t.Counts[counts.Pull],
		Pushes:   t.Counts[counts.Push],
		Counts:   t.Counts,
		LastPull: known(t.LastPull),
		LastPush: known(t.LastPush),
	}
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
