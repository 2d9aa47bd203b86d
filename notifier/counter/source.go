package counter

import (
	"context"
	"time"
)

// Totals are the numbers of one repository since the beginning. Classes that
// never happened are not in Counts.
type Totals struct {
	Name     string
	Counts   map[Class]int64
	LastPull time.Time // zero: never
	LastPush time.Time
}

// Day holds the numbers of one repository on one day.
type Day struct {
	Date   string // 2006-01-02, UTC
	Counts map[Class]int64
}

// Source is where numbers are read: a Counter gives those of this disk, a Sum
// those of all replicas. Both are safe for concurrent use and neither looks at
// who is asking.
type Source interface {
	// Repositories lists every repository that was counted, by name.
	Repositories(ctx context.Context) ([]Totals, error)
	// Repository gives one repository and its numbers by tag; false if nothing
	// was ever counted for it.
	Repository(ctx context.Context, name string) (Totals, map[string]map[Class]int64, bool, error)
	// Daily gives the last days, today included, oldest first. Days without
	// numbers are there with empty Counts. At most KeepDays.
	Daily(ctx context.Context, name string, days int) ([]Day, error)
}

// lastDays gives the dates that Daily answers with.
func lastDays(now time.Time, days int) []Day {
	days = min(max(days, 1), KeepDays)
	list := make([]Day, days)
	for i := range list {
		list[i].Date = dateOf(dayOf(now) + int64(i-days+1))
	}
	return list
}
