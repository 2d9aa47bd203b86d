package pds

import "time"

// spareShare is the percentage of each limit that is not used for what can wait for days,
// such as the records of images that were pushed long ago. Normal writes may use two thirds
// of it, and urgent ones all of it.
const spareShare = 30

// Spare reports whether so many creates, and those before them that are pending, leave the
// part of each limit free that is kept for newer ones, and when they will otherwise.
func (a *Account) Spare(pending, creates int) (ok bool, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	a.forget(now)
	if now.Before(a.saved.Until) {
		return false, a.saved.Until
	}
	ok, at = true, now
	for _, w := range a.cfg.Budget.limits() {
		most := w.most - w.most*spareShare/100
		points := (pending + creates) * CreatePoints
		if pending == 0 {
			points = min(points, most) // what costs more is made once nothing else counts
		}
		if a.used(now, w.length, all)+points > most {
			ok, at = false, later(at, a.free(now, w.length, most-points, all))
		}
	}
	return ok, at
}

// ForecastSpare returns when so many creates that wait for Spare will have been made, if
// nothing else is written. It looks 30 days ahead at most.
func (a *Account) ForecastSpare(creates int) time.Time {
	return a.forecast(CreatePoints*creates, spareShare)
}
