package auth

import (
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// keyCache is the cached key of an account, or the error of the last attempt to fetch it.
type keyCache struct {
	retry time.Duration // until the key is fetched again after a failure

	mu      sync.Mutex
	key     atcrypto.PublicKey
	fetched time.Time // when key was fetched
	err     error     // of a later fetch
	failed  time.Time // when it failed
}

// get returns the key if it was fetched at most maxAge ago, or the error of the last
// fetch, or neither if a new fetch is due.
func (c *keyCache) get(now time.Time, maxAge time.Duration) (atcrypto.PublicKey, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key != nil && now.Sub(c.fetched) < maxAge {
		return c.key, nil
	}
	if c.err != nil && now.Sub(c.failed) < c.retry {
		return nil, c.err
	}
	return nil, nil
}

func (c *keyCache) store(key atcrypto.PublicKey, err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err, c.failed = err, now
		return
	}
	c.key, c.fetched, c.err = key, now, nil
}
