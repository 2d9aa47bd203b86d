package stats

import (
	"context"
	"net/http"

	"github.com/tidings-dev/tidings/notifier/counts"
)

type day struct {
	Date   string                 `json:"date"` // UTC
	Pulls  int64                  `json:"pulls"`
	Pushes int64                  `json:"pushes"`
	Counts map[counts.Class]int64 `json:"counts"`
}

func (a *api) daily(w http.ResponseWriter, q *http.Request, name string) {
	n, err := number(q, "days", 30, counts.KeepDays)
	if err != nil {
		badRequest(w, err)
		return
	}
	list, degraded, err := read(q.Context(), a, func(ctx context.Context, s counts.Source) ([]counts.Day, error) {
		return s.Daily(ctx, name, n)
	})
	if err != nil {
		a.unavailable(w, err)
		return
	}
	out := struct {
		Name     string `json:"name"`
		Days     []day  `json:"days"`
		Degraded bool   `json:"degraded,omitempty"`
	}{Name: name, Days: make([]day, 0, len(list)), Degraded: degraded}
	quiet := true
	for _, d := range list {
		out.Days = append(out.Days, day{d.Date, d.Counts[counts.Pull], d.Counts[counts.Push], d.Counts})
		quiet = quiet && len(d.Counts) == 0
	}
	if quiet {
		// There are no counts in these days, or no such repository.
		d, degraded, err := a.detail(q.Context(), name)
		if err != nil {
			a.unavailable(w, err)
			return
		}
		if !d.found {
			a.noRepository(w, degraded)
			return
		}
	}
	answer(w, out)
}
