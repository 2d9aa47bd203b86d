package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// ReadSlowly returns a Publisher whose reads begin at most once in an interval, and wait
// when the service asks for that. It is for tasks that read a whole account.
func ReadSlowly(p Publisher, interval time.Duration) Publisher {
	return &slowReader{Publisher: p, interval: interval}
}

type slowReader struct {
	Publisher
	interval time.Duration

	mu   sync.Mutex
	next time.Time
}

// longestLimit bounds a wait that a service asks for, in case its clock is wrong.
const longestLimit = 10 * time.Minute

func (s *slowReader) Get(ctx context.Context, collection, rkey string) (id cid.Cid, value []byte, err error) {
	err = s.read(ctx, func() (err error) {
		id, value, err = s.Publisher.Get(ctx, collection, rkey)
		return err
	})
	return id, value, err
}

// List returns at most as many records as a call of the service does.
func (s *slowReader) List(ctx context.Context, collection, cursor string, limit int, reverse bool) (page []repo.Record, next string, err error) {
	err = s.read(ctx, func() (err error) {
		page, next, err = s.Publisher.List(ctx, collection, cursor, min(limit, listPage), reverse)
		return err
	})
	return page, next, err
}

// read calls f when the interval allows it, again if the service asks to wait.
func (s *slowReader) read(ctx context.Context, f func() error) error {
	for {
		if err := sleep(ctx, s.take()); err != nil {
			return err
		}
		err := f()
		pause, paused := PauseOf(err)
		if !paused || !pause.Limited {
			return err
		}
		if err := sleep(ctx, min(max(time.Until(pause.Until), time.Second), longestLimit)); err != nil {
			return err
		}
	}
}

// take reserves the time of a call, and returns how long it is until then.
func (s *slowReader) take() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	at := s.next
	if at.Before(now) {
		at = now
	}
	s.next = at.Add(s.interval)
	return at.Sub(now)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
