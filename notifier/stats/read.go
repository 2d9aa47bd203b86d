package stats

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/counter"
)

const (
	sourceTime = 3 * time.Second // for the source; what is left is the fallback's
	badFor     = 2 * time.Second // after a failure the source is left alone
	listingAge = 2 * time.Second // a hundred readers cost as much as one
	readers    = 2               // at a time: the tags of one repository, or a thousand pushes, take milliseconds and megabytes
)

// acquire waits until fewer than readers requests read. The caller must call
// release when it has read.
func (a *api) acquire(ctx context.Context) (release func(), err error) {
	select {
	case a.reading <- struct{}{}:
		return func() { <-a.reading }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// read asks the source, and the fallback if that fails or has just failed. It waits
// while others read.
func read[T any](ctx context.Context, a *api, ask func(context.Context, counter.Source) (T, error)) (val T, degraded bool, err error) {
	release, err := a.acquire(ctx)
	if err != nil {
		return val, false, err
	}
	defer release()
	if a.Fallback == nil {
		val, err = ask(ctx, a.Source)
		return val, false, err
	}
	if !a.bad.now(a.Now()) {
		short, cancel := context.WithTimeout(ctx, sourceTime)
		defer cancel()
		val, err = ask(short, a.Source)
		if err == nil || errors.Is(ctx.Err(), context.Canceled) {
			return val, false, err
		}
		a.bad.until(a.Now().Add(badFor))
		a.log.Debug("the sum can't be read; the numbers of this disk are shown", "error", err)
	}
	val, err = ask(ctx, a.Fallback)
	return val, true, err
}

// bad remembers that the source failed.
type bad struct {
	mu sync.Mutex
	at time.Time
}

func (b *bad) now(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Before(b.at)
}

func (b *bad) until(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = t
}

// listing keeps the list of all repositories for a moment, and the orders in
// which it was shown: to sort it for each page would take as long as there are
// repositories, private ones among them.
type listing struct {
	mu       sync.Mutex
	list     []counter.Totals
	orders   map[order][]int32 // places in list
	degraded bool
	until    time.Time
}

// order is one in which repositories are shown.
type order struct {
	sort, order string
	private     bool // with those that are not public
}

// listed gives all repositories, and their places in the order of a page. Both
// are the same for everybody and must not be changed.
func (a *api) listed(ctx context.Context, p page, private bool) (list []counter.Totals, places []int32, degraded bool, err error) {
	l := &a.listing
	l.mu.Lock()
	defer l.mu.Unlock()
	if list, degraded, err = a.all(ctx); err != nil {
		return nil, nil, false, err
	}
	o := order{p.sort, p.order, private}
	places, known := l.orders[o]
	if !known {
		for i, t := range list {
			if private || a.Visible(t.Name) {
				places = append(places, int32(i))
			}
		}
		slices.SortFunc(places, func(i, j int32) int { return p.compare(p.position(list[i]), p.position(list[j])) })
		l.orders[o] = places
	}
	return list, places, degraded, nil
}

// all lists all repositories. The caller must hold the lock of the listing.
func (a *api) all(ctx context.Context) ([]counter.Totals, bool, error) {
	l := &a.listing
	if a.Now().Before(l.until) {
		return l.list, l.degraded, nil
	}
	list, degraded, err := read(ctx, a, func(ctx context.Context, s counter.Source) ([]counter.Totals, error) {
		return s.Repositories(ctx)
	})
	if err != nil {
		return nil, false, err
	}
	l.orders = map[order][]int32{}
	l.list, l.degraded, l.until = list, degraded, a.Now().Add(listingAge)
	return list, degraded, nil
}
