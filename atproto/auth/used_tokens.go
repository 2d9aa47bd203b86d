package auth

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"
)

// maxUsedTokens limits usedTokens; each takes about 100 bytes. It allows 200
// tokens a second that are valid for five minutes.
const maxUsedTokens = 1 << 16

// usedTokens remembers service tokens until they expire. Its zero value is ready.
type usedTokens struct {
	mu      sync.Mutex
	expires map[[sha256.Size]byte]time.Time
	swept   int // tokens left by the last sweep
}

type tokenUse int

const (
	tokenNew tokenUse = iota
	tokenUsed
	tokensFull
)

// add notes the use of a token that expires at the given time.
func (u *usedTokens) add(id [sha256.Size]byte, expires, now time.Time) tokenUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.expires[id]; ok {
		return tokenUsed
	}
	if len(u.expires) >= min(2*u.swept+64, maxUsedTokens) {
		maps.DeleteFunc(u.expires, func(_ [sha256.Size]byte, expires time.Time) bool { return !now.Before(expires) })
		u.swept = len(u.expires)
	}
	if len(u.expires) >= maxUsedTokens {
		return tokensFull
	}
	if u.expires == nil {
		u.expires = map[[sha256.Size]byte]time.Time{}
	}
	u.expires[id] = expires
	return tokenNew
}
