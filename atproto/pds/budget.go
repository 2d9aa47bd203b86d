package pds

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// A Budget limits the points that writes may cost. A PDS charges 3 points for a
// create, 2 for an update and 1 for a delete, for each account by hour and by day,
// also for a call that it refuses, and a call beyond the limit costs all that
// was left. So a call that does not fit is not made.
type Budget struct {
	Hour int // 0: 5,000, the limit of Bluesky and of the reference PDS; negative: no limit
	Day  int // 0: 35,000; negative: no limit
}

// Default limits; the source is the reference PDS.
const (
	defaultHour = 5_000
	defaultDay  = 35_000
)

// urgentShare is the part of each limit that only urgent writes may use, so that
// a backlog of layer records does not delay announcements.
const urgentShare = 10 // percent

// bucket is the precision of the history of spent points. Points count until the
// whole bucket is old enough, so fewer are spent than allowed, never more.
const bucket = 5 * time.Minute

// spent are the points of one bucket.
type spent struct {
	At     time.Time `json:"at"` // its beginning
	Points int       `json:"points"`
}

// cost is what the writes cost in points.
func cost(writes []repo.Write) int {
	points := 0
	for _, w := range writes {
		switch w.Action {
		case repo.Create:
			points += 3
		case repo.Update:
			points += 2
		default:
			points++
		}
	}
	return points
}

// limits are the windows of the budget.
func (b Budget) limits() []window {
	var list []window
	add := func(length time.Duration, most, otherwise int) {
		if most == 0 {
			most = otherwise
		}
		if most > 0 {
			list = append(list, window{length, most})
		}
	}
	add(time.Hour, b.Hour, defaultHour)
	add(24*time.Hour, b.Day, defaultDay)
	return list
}

// spend notes points durably before they are spent. If they do not fit it returns
// an *Error with Outcome Limited and the time at which they will.
func (a *Account) spend(method string, points int, urgent bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	a.forget(now)
	if now.Before(a.saved.Until) {
		return &Error{Method: method, Outcome: Limited, Until: a.saved.Until, Err: fmt.Errorf("the service asked to wait until %s", a.saved.Until.UTC().Format(time.RFC3339))}
	}
	for _, w := range a.cfg.Budget.limits() {
		most := w.most
		if !urgent {
			most -= most * urgentShare / 100
		}
		// A call that costs more than the limit is made once nothing else counts.
		if used := a.used(now, w.length); used > 0 && used+points > most {
			until := a.free(now, w.length, most-points)
			return &Error{Method: method, Outcome: Limited, Until: until,
				Err: fmt.Errorf("%d of %d points are spent in %s; %d more fit at %s", used, w.most, w.length, points, until.UTC().Format(time.RFC3339))}
		}
	}
	a.add(now, points)
	return a.save()
}

// add counts points. The caller must hold mu.
func (a *Account) add(now time.Time, points int) {
	at := now.Truncate(bucket)
	if n := len(a.saved.Points); n > 0 && a.saved.Points[n-1].At.Equal(at) {
		a.saved.Points[n-1].Points += points
		return
	}
	a.saved.Points = append(a.saved.Points, spent{at, points})
}

// forget drops what counts no more, and what a clock that was ahead has noted:
// its times are moved back to now, so that they end. The caller must hold mu.
func (a *Account) forget(now time.Time) {
	kept := a.saved.Points[:0]
	for _, p := range a.saved.Points {
		if p.At.After(now) {
			p.At = now.Truncate(bucket)
		}
		if p.At.Add(bucket + 24*time.Hour).After(now) {
			kept = append(kept, p)
		}
	}
	a.saved.Points = kept
	if most := now.Add(maxLimited); a.saved.Until.After(most) {
		a.saved.Until = most
	}
}

// used is how many points count in the window that ends now. The caller must hold
// mu.
func (a *Account) used(now time.Time, length time.Duration) int {
	sum := 0
	for _, p := range a.saved.Points {
		if p.At.Add(bucket + length).After(now) {
			sum += p.Points
		}
	}
	return sum
}

// free is when no more than most points count. The caller must hold mu.
func (a *Account) free(now time.Time, length time.Duration, most int) time.Time {
	used := a.used(now, length)
	for _, p := range a.saved.Points {
		end := p.At.Add(bucket + length)
		if !end.After(now) {
			continue
		}
		if used -= p.Points; used <= max(most, 0) {
			return end
		}
	}
	return now
}

// observe takes over what the service says is left of a window, if that is less
// than the budget has. A PDS reports whichever of its limits has the least left;
// those that are not for the budget's windows are about requests.
func (a *Account) observe(h http.Header) {
	left, err := strconv.Atoi(h.Get("RateLimit-Remaining"))
	_, after, _ := strings.Cut(h.Get("RateLimit-Policy"), ";w=") // "5000;w=3600"
	seconds, err2 := strconv.Atoi(after)
	if err != nil || err2 != nil || left < 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, w := range a.cfg.Budget.limits() {
		if w.length != time.Duration(seconds)*time.Second {
			continue
		}
		if more := w.most - left - a.used(now, w.length); more > 0 {
			a.add(now, more)
		}
	}
}

// limited keeps the time before which the service wants no writes.
func (a *Account) limited(until time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if until.After(a.saved.Until) {
		a.saved.Until = until
	}
	return a.save()
}

// BudgetStatus is what is left.
type BudgetStatus struct {
	HourLeft, DayLeft   int       // points; of a window without limit the default's
	HourLimit, DayLimit int       // points; 0: no limit
	Until               time.Time // no writes before; zero: now
}

// budget is the status. The caller must hold mu.
func (a *Account) budget() BudgetStatus {
	now := a.now()
	var s BudgetStatus
	for _, w := range a.cfg.Budget.limits() {
		left := max(0, w.most-a.used(now, w.length))
		if w.length == time.Hour {
			s.HourLeft, s.HourLimit = left, w.most
		} else {
			s.DayLeft, s.DayLimit = left, w.most
		}
	}
	if a.saved.Until.After(now) {
		s.Until = a.saved.Until
	}
	return s
}
