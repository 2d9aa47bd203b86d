package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Limits of used tokens; each takes about 150 bytes. Registries, owners and unlisted
// accounts have memory of their own, so none of these groups can use up that of another.
// Those of registries and owners allow 200 tokens a second that are valid for five
// minutes, a single owner 25. The rate limit of unlisted accounts keeps their number below
// maxUnlistedTokens.
const (
	maxUsedTokens     = 1 << 16
	maxOwnerTokens    = maxUsedTokens / 8
	maxUnlistedTokens = 1 << 13
)

// sweepPause is the least time between two sweeps because of a limit, since calls over it
// can be frequent.
const sweepPause = time.Second

// usedTokens remembers service tokens until they expire.
type usedTokens struct {
	total, perIssuer int // limits

	mu       sync.Mutex
	tokens   map[tokenID]tokenUse
	byIssuer map[string]int // number of tokens
	swept    int            // tokens left by the last sweep
	sweptAt  time.Time
}

// tokenUse is the use of a token.
type tokenUse struct {
	issuer  string
	expires time.Time
}

type tokenID = [sha256.Size]byte

func newUsedTokens(total, perIssuer int) *usedTokens {
	return &usedTokens{total: total, perIssuer: perIssuer, tokens: map[tokenID]tokenUse{}, byIssuer: map[string]int{}}
}

// has reports whether a token was used.
func (u *usedTokens) has(id tokenID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, used := u.tokens[id]
	return used
}

type tokenResult int

const (
	tokenNew tokenResult = iota
	tokenUsed
	tokensFull
)

// add notes the use of a token.
func (u *usedTokens) add(id tokenID, use tokenUse, now time.Time) tokenResult {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.tokens[id]; ok {
		return tokenUsed
	}
	full := u.full(use.issuer) && now.Sub(u.sweptAt).Abs() >= sweepPause
	if full || len(u.tokens) >= 2*u.swept+64 {
		u.sweep(now)
	}
	if u.full(use.issuer) {
		return tokensFull
	}
	u.tokens[id] = use
	u.byIssuer[use.issuer]++
	return tokenNew
}

func (u *usedTokens) full(issuer string) bool {
	return len(u.tokens) >= u.total || u.byIssuer[issuer] >= u.perIssuer
}

// sweep forgets the tokens that have expired.
func (u *usedTokens) sweep(now time.Time) {
	for id, use := range u.tokens {
		if now.Before(use.expires) {
			continue
		}
		delete(u.tokens, id)
		if u.byIssuer[use.issuer]--; u.byIssuer[use.issuer] == 0 {
			delete(u.byIssuer, use.issuer)
		}
	}
	u.swept, u.sweptAt = len(u.tokens), now
}
