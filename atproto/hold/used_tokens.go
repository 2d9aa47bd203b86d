package hold

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"
)

// usedTokens remembers service tokens until they end. It begins empty: that a
// token's event is not recorded twice across a restart is the recorder's.
type usedTokens struct {
	mu    sync.Mutex
	ends  map[[sha256.Size]byte]time.Time
	swept int // how many were left when those that ended were dropped
}

// maxUsedTokens is how many tokens are remembered, about 100 bytes each: 200 a
// second, if they last five minutes.
const maxUsedTokens = 1 << 16

type use int

const (
	usedNow use = iota
	usedBefore
	noRoom
)

// use notes a token that ends at the given time.
func (u *usedTokens) use(id [sha256.Size]byte, end, now time.Time) use {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.ends[id]; ok {
		return usedBefore
	}
	if len(u.ends) >= min(2*u.swept+64, maxUsedTokens) {
		maps.DeleteFunc(u.ends, func(_ [sha256.Size]byte, end time.Time) bool { return !now.Before(end) })
		u.swept = len(u.ends)
	}
	if len(u.ends) >= maxUsedTokens {
		return noRoom
	}
	if u.ends == nil {
		u.ends = map[[sha256.Size]byte]time.Time{}
	}
	u.ends[id] = end
	return usedNow
}
