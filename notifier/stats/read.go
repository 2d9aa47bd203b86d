package stats

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/counter"
)

const (
	sourceTime = 3 * time.Second // for the source; what is left is the fallback's
	badFor     = 2 * time.Second // after a failure the source is left alone
	listingAge = 2 * time.Second // a hundred readers cost as much as one
)

// read asks the source, and the fallback if that fails or has just failed.
func read[T any](ctx context.Context, a *api, ask func(context.Context, counter.Source) (T, error)) (val T, degraded bool, err error) {
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
		a.log.Debug("the sum can't be read; the numbers of this disk are shown", "err", err)
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

// listing keeps the list of all repositories for a moment.
type listing struct {
	mu       sync.Mutex
	list     []counter.Totals
	degraded bool
	until    time.Time
}

// all gives the same list to everybody: it must not be changed.
func (a *api) all(ctx context.Context) ([]counter.Totals, bool, error) {
	l := &a.listing
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.Now().Before(l.until) {
		return l.list, l.degraded, nil
	}
	list, degraded, err := read(ctx, a, func(ctx context.Context, s counter.Source) ([]counter.Totals, error) {
		return s.Repositories(ctx)
	})
	if err != nil {
		return nil, false, err
	}
	l.list, l.degraded, l.until = list, degraded, a.Now().Add(listingAge)
	return list, degraded, nil
}
