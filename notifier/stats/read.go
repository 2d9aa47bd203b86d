package stats

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

const (
	sourceTimeout = 3 * time.Second // the remaining time of a request is for the fallback
	retryAfter    = 2 * time.Second // after a failure of the source
	listingAge    = 2 * time.Second // for which the list is cached
	readers       = 2               // concurrent reads: the tags of a repository or 1,000 pushes take milliseconds and megabytes
)

// acquire waits until fewer than readers requests are reading. The caller must call
// release after reading.
func (a *api) acquire(ctx context.Context) (release func(), err error) {
	select {
	case a.reading <- struct{}{}:
		return func() { <-a.reading }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// read calls get with the source, or with the fallback if the source fails or has just
// failed. It waits for a slot.
func read[T any](ctx context.Context, a *api, get func(context.Context, counts.Source) (T, error)) (val T, degraded bool, err error) {
	release, err := a.acquire(ctx)
	if err != nil {
		return val, false, err
	}
	defer release()
	if a.Fallback == nil {
		val, err = get(ctx, a.Source)
		return val, false, err
	}
	if !a.bad.now(a.Now()) {
		short, cancel := context.WithTimeout(ctx, sourceTimeout)
		defer cancel()
		val, err = get(short, a.Source)
		if err == nil || errors.Is(ctx.Err(), context.Canceled) {
			return val, false, err
		}
		a.bad.until(a.Now().Add(retryAfter))
		a.log.Debug("cannot read the sum; showing the local counts", "error", err)
	}
	val, err = get(ctx, a.Fallback)
	return val, true, err
}

// bad is the time until which the source is not read after a failure.
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

// listing caches the list of all repositories and its sort orders. Sorting for each page
// would take time that depends on the number of repositories, including private ones.
type listing struct {
	mu       sync.Mutex
	list     []counts.Totals
	orders   map[order][]int32 // indexes in list
	degraded bool
	until    time.Time
}

// order is a sort order of repositories.
type order struct {
	sort, order string
	private     bool // including private ones
}

// sorted returns all repositories, and their indexes in the order of a page. Both
// are shared and must not be changed.
func (a *api) sorted(ctx context.Context, p page, private bool) (list []counts.Totals, indexes []int32, degraded bool, err error) {
	l := &a.listing
	l.mu.Lock()
	defer l.mu.Unlock()
	if list, degraded, err = a.all(ctx); err != nil {
		return nil, nil, false, err
	}
	o := order{p.sort, p.order, private}
	indexes, known := l.orders[o]
	if !known {
		for i, t := range list {
			if private || a.Visible(t.Name) {
				indexes = append(indexes, int32(i))
			}
		}
		slices.SortFunc(indexes, func(i, j int32) int { return p.compare(p.position(list[i]), p.position(list[j])) })
		l.orders[o] = indexes
	}
	return list, indexes, degraded, nil
}

// all lists all repositories. The caller must hold the lock of the listing.
func (a *api) all(ctx context.Context) ([]counts.Totals, bool, error) {
	l := &a.listing
	if a.Now().Before(l.until) {
		return l.list, l.degraded, nil
	}
	list, degraded, err := read(ctx, a, func(ctx context.Context, s counts.Source) ([]counts.Totals, error) {
		return s.Repositories(ctx)
	})
	if err != nil {
		return nil, false, err
	}
	l.orders = map[order][]int32{}
	l.list, l.degraded, l.until = list, degraded, a.Now().Add(listingAge)
	return list, degraded, nil
}
