package pds

import (
	"fmt"
	"net/http"
	"slices"
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
	Hour int // 0: DefaultHour; NoLimit: no limit
	Day  int // 0: DefaultDay; NoLimit: no limit
}

// The default limits are those of Bluesky and of the reference PDS.
const (
	DefaultHour = 5_000
	DefaultDay  = 35_000
)

// NoLimit is the limit of a window without one.
const NoLimit = -1

// minLimit is the lowest limit that leaves background writes room for a create.
const minLimit = 100

// CheckLimit returns an error if a number of points is not allowed as a limit.
func CheckLimit(points int) error {
	if points < minLimit && points != NoLimit {
		return fmt.Errorf("%d points are too few; the minimum is %d", points, minLimit)
	}
	return nil
}

// A Priority is the part of the budget that a write may use.
type Priority int

const (
	// Normal writes leave a tenth of each limit to urgent ones.
	Normal Priority = iota
	// Urgent writes may use all of the budget, so that a backlog of layer records does
	// not delay announcements.
	Urgent
	// Background writes use at most a fifth of each limit, and leave as much to urgent
	// ones as normal writes do.
	Background
)

// Shares of each limit, in percent.
const (
	urgentShare     = 10 // that only urgent writes may use
	backgroundShare = 20 // that background writes may use
)

// bucket is the precision of the history of spent points. Points count until the
// whole bucket is old enough, so fewer are spent than allowed, never more.
const bucket = 5 * time.Minute

// spent are the points of one bucket.
type spent struct {
	At         time.Time `json:"at"` // its beginning
	Points     int       `json:"points"`
	Background int       `json:"background,omitempty"` // those of background writes, which are among Points
}

// all and background select points for used and free.
func all(s spent) int        { return s.Points }
func background(s spent) int { return s.Background }

// CreatePoints is what a create costs.
const CreatePoints = 3

// cost is what the writes cost in points.
func cost(writes []repo.Write) int {
	points := 0
	for _, w := range writes {
		switch w.Action {
		case repo.Create:
			points += CreatePoints
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
	add(time.Hour, b.Hour, DefaultHour)
	add(24*time.Hour, b.Day, DefaultDay)
	return list
}

// spend notes points durably before they are spent. If they do not fit it returns
// an *Error with Outcome Limited and the time at which they will, or TooLarge if they
// never will.
func (a *Account) spend(method string, points int, p Priority) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	a.forget(now)
	if err := a.check(now, points, p); err != nil {
		err.Method = method
		return err
	}
	if len(a.cfg.Budget.limits()) == 0 {
		return nil // points do not count, so there is nothing to keep
	}
	a.add(now, points, p)
	return a.save()
}

// Fit returns how many of the writes, from the first, the budget has points for now. For
// the others of urgent writes other writes leave points free for a while.
func (a *Account) Fit(writes []repo.Write, p Priority) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	a.forget(now)
	n := 0
	for n < len(writes) && a.check(now, cost(writes[:n+1]), p) == nil {
		n++
	}
	if p == Urgent {
		a.urgent = pendingPoints{cost(writes[n:]), now}
	}
	return n
}

// pendingPoints are points that urgent writes need and did not get.
type pendingPoints struct {
	points int
	at     time.Time // when they were asked for
}

// pendingFor is how long they are kept free. Whoever still needs them asks again before.
const pendingFor = 2 * time.Minute

// reserved is how many points of a window only urgent writes may use. The caller must hold
// mu.
func (a *Account) reserved(now time.Time, most int) int {
	share := most * urgentShare / 100
	if age := now.Sub(a.urgent.at); age < 0 || age > pendingFor {
		return share
	}
	return max(share, a.urgent.points)
}

// check returns the error for points that may not be spent now. The caller must hold
// mu.
func (a *Account) check(now time.Time, points int, p Priority) *Error {
	if now.Before(a.saved.Until) {
		return &Error{Outcome: Limited, Until: a.saved.Until, Err: fmt.Errorf("the service asked to wait until %s", a.saved.Until.UTC().Format(time.RFC3339))}
	}
	for _, w := range a.cfg.Budget.limits() {
		most := w.most
		if p != Urgent {
			most -= a.reserved(now, most)
		}
		// A call that costs more than the limit is made once nothing else counts.
		if a.used(now, w.length, all) > 0 || p != Urgent && most < points && points <= w.most {
			if err := a.checkPart(now, w, points, most, all); err != nil {
				return err
			}
		}
		if p != Background {
			continue
		}
		share := w.most * backgroundShare / 100
		if points > share {
			return &Error{Outcome: TooLarge, Err: fmt.Errorf("%d points are more than the %d that background writes have in %s", points, share, w.length)}
		}
		if err := a.checkPart(now, w, points, share, background); err != nil {
			return err
		}
	}
	return nil
}

// checkPart returns an error if the points of a part of the writes would be more than
// most in a window. The caller must hold mu.
func (a *Account) checkPart(now time.Time, w window, points, most int, part func(spent) int) *Error {
	used := a.used(now, w.length, part)
	if used+points <= most {
		return nil
	}
	until := a.free(now, w.length, most-points, part)
	return &Error{Outcome: Limited, Until: until,
		Err: fmt.Errorf("%d of %d points are spent in %s; %d more fit at %s", used, most, w.length, points, until.UTC().Format(time.RFC3339))}
}

// add counts points. The caller must hold mu.
func (a *Account) add(now time.Time, points int, p Priority) {
	at := now.Truncate(bucket)
	if n := len(a.saved.Points); n == 0 || !a.saved.Points[n-1].At.Equal(at) {
		a.saved.Points = append(a.saved.Points, spent{At: at})
	}
	last := &a.saved.Points[len(a.saved.Points)-1]
	last.Points += points
	if p == Background {
		last.Background += points
	}
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

// used is how many points of a part count in the window that ends now. The caller must
// hold mu.
func (a *Account) used(now time.Time, length time.Duration, part func(spent) int) int {
	sum := 0
	for _, p := range a.saved.Points {
		if p.At.Add(bucket + length).After(now) {
			sum += part(p)
		}
	}
	return sum
}

// free is when no more than most points of a part count. The caller must hold mu.
func (a *Account) free(now time.Time, length time.Duration, most int, part func(spent) int) time.Time {
	used := a.used(now, length, part)
	for _, p := range a.saved.Points {
		end := p.At.Add(bucket + length)
		if !end.After(now) {
			continue
		}
		if used -= part(p); used <= max(most, 0) {
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
		if more := w.most - left - a.used(now, w.length, all); more > 0 {
			a.add(now, more, Normal)
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
		left := max(0, w.most-a.used(now, w.length, all))
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

// maxForecast bounds Forecast.
const maxForecast = 30 * 24 * time.Hour

// Forecast returns when normal writes that cost a number of points will have been made, if
// nothing else is written and calls take no time. It looks 30 days ahead at most.
func (a *Account) Forecast(points int) time.Time { return a.forecast(points, urgentShare) }

// forecast is Forecast for writes that leave a percentage of each limit to others.
func (a *Account) forecast(points, leave int) time.Time {
	a.mu.Lock()
	now := a.now()
	f := forecast{limits: a.cfg.Budget.limits(), leave: leave, spent: slices.Clone(a.saved.Points)}
	at := later(now, a.saved.Until)
	a.mu.Unlock()
	for end := now.Add(maxForecast); at.Before(end); {
		points -= f.spend(at, points)
		if points <= 0 {
			break
		}
		at = f.next(at)
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// A forecast is a future of the budget.
type forecast struct {
	limits []window
	leave  int // percent of each limit
	spent  []spent
}

// spend spends up to a number of points at a time, and returns how many.
func (f *forecast) spend(at time.Time, points int) int {
	for _, w := range f.limits {
		left := w.most - w.most*f.leave/100
		for _, s := range f.spent {
			if s.At.Add(bucket + w.length).After(at) {
				left -= s.Points
			}
		}
		points = min(points, max(left, 0))
	}
	if points > 0 {
		f.spent = append(f.spent, spent{At: at.Truncate(bucket), Points: points})
	}
	return points
}

// next is the next time at which some points do not count any more in a window.
func (f *forecast) next(at time.Time) time.Time {
	next := at.Add(maxForecast)
	for _, w := range f.limits {
		for _, s := range f.spent {
			if end := s.At.Add(bucket + w.length); end.After(at) && end.Before(next) {
				next = end
			}
		}
	}
	return next
}
