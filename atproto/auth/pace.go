package auth

import (
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/generations"
)

// pace is a rate limit: burst calls at once, and after that one in each interval.
type pace struct {
	burst    int
	interval time.Duration
}

// paced is what a pace remembers of the calls so far: when all of them would have been
// made one interval apart. Its zero value has no calls.
type paced time.Time

// add returns the state with one more call, and how long that call has to wait; if that is
// more than 0, the call is not added.
func (p pace) add(before paced, now time.Time) (after paced, wait time.Duration) {
	full := time.Duration(p.burst) * p.interval
	at := time.Time(before)
	if at.Before(now) || at.Sub(now) > full { // the latter after the clock was set back
		at = now
	}
	if wait := at.Add(p.interval).Sub(now) - full; wait > 0 {
		return before, wait
	}
	return paced(at.Add(p.interval)), 0
}

// issuerPace limits the calls of issuers, each and in total. It remembers the newest
// issuers. The state of one that is forgotten no longer matters: the total admits fewer
// calls than those are within the time that a full burst takes to end.
type issuerPace struct {
	each, total pace

	mu      sync.Mutex
	all     paced
	issuers generations.Map[string, paced]
}

func newIssuerPace(each, total pace, remembered int) *issuerPace {
	return &issuerPace{each: each, total: total, issuers: generations.New[string, paced](remembered)}
}

// allow counts a call. If it is over a limit, it returns how long the issuer has to wait.
func (p *issuerPace) allow(issuer string, now time.Time) (wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, _ := p.issuers.Get(issuer)
	own, wait := p.each.add(before, now)
	if wait > 0 {
		return wait
	}
	all, wait := p.total.add(p.all, now)
	if wait > 0 {
		return wait
	}
	p.all = all
	p.issuers.Put(issuer, own, 1)
	return 0
}
