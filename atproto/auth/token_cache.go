package auth

import (
	"bytes"
	"sync"
	"time"
)

// maxCachedTokens is when tokenCache is emptied.
const maxCachedTokens = 256

// tokenCache keeps the claims of tokens whose signature was verified, until they
// expire or the secret changes. A client that writes sends the same token each
// time. Its zero value is ready.
type tokenCache struct {
	mu     sync.Mutex
	secret []byte // that the tokens are signed with
	tokens map[string]claims
}

func (k *tokenCache) get(token string, secret []byte, now time.Time) (claims, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.tokens[token]
	return c, ok && bytes.Equal(k.secret, secret) && now.Before(c.ExpiresAt.Time)
}

func (k *tokenCache) add(token string, secret []byte, c claims) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.tokens) >= maxCachedTokens || !bytes.Equal(k.secret, secret) {
		k.tokens = nil
	}
	if k.tokens == nil {
		k.tokens, k.secret = map[string]claims{}, secret
	}
	k.tokens[token] = c
}
