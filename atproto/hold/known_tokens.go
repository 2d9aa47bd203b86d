package hold

import (
	"bytes"
	"sync"
	"time"
)

// maxKnownTokens is how many tokens are remembered; then all are forgotten.
const maxKnownTokens = 256

// knownTokens remembers what tokens claim whose signature was found good, until
// they expire or the secret is another. Who writes shows the same one each time.
type knownTokens struct {
	mu     sync.Mutex
	secret []byte // that they are signed with
	tokens map[string]claims
}

func (k *knownTokens) get(token string, secret []byte, now time.Time) (claims, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.tokens[token]
	return c, ok && bytes.Equal(k.secret, secret) && now.Before(c.ExpiresAt.Time)
}

func (k *knownTokens) add(token string, secret []byte, c claims) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.tokens) >= maxKnownTokens || !bytes.Equal(k.secret, secret) {
		k.tokens = nil
	}
	if k.tokens == nil {
		k.tokens, k.secret = map[string]claims{}, secret
	}
	k.tokens[token] = c
}
