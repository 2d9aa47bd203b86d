package announce

import (
	"time"

	"github.com/tidings-dev/tidings/notifier/state"
)

// A dayCount is how many posts were put into the outbox on a day, without summaries.
type dayCount struct {
	Day   string `json:"day"`
	Posts int    `json:"posts"`
}

// today is the current day in UTC, by the system clock.
func (s *Sink) today() string { return s.now().UTC().Format(time.DateOnly) }

// tomorrow is when the next day begins.
func (s *Sink) tomorrow() time.Time {
	return s.now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
}

func (d *decision) postsToday() (c dayCount, err error) {
	if _, err = d.get(state.AnnounceDay, &c); err != nil || c.Day != d.today() {
		c = dayCount{Day: d.today()}
	}
	return c, err
}

// limited reports whether the posts of the day are used up.
func (d *decision) limited() (bool, error) {
	if d.PerDay == 0 {
		return false, nil
	}
	c, err := d.postsToday()
	return c.Posts >= d.PerDay, err
}

func (d *decision) countPost() error {
	if d.PerDay == 0 {
		return nil
	}
	c, err := d.postsToday()
	if err != nil {
		return err
	}
	c.Posts++
	return d.set(state.AnnounceDay, c)
}
