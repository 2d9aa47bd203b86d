package auth

import (
	"fmt"
	"testing"
	"time"
)

func testTokenID(i int) (id tokenID) {
	copy(id[:], fmt.Sprint(i))
	return id
}

// Tokens are kept until they expire, and no longer.
func TestUsedTokens(t *testing.T) {
	t.Parallel()
	u := newUsedTokens(maxUsedTokens, maxUsedTokens)
	now := time.Now()
	for i := range maxUsedTokens {
		if got := u.add(testTokenID(i), tokenUse{"a", now.Add(time.Minute + time.Duration(i%2)*time.Hour)}, now); got != tokenNew {
			t.Fatalf("token %d: %v", i, got)
		}
	}
	if got := u.add(testTokenID(-1), tokenUse{"a", now.Add(time.Minute)}, now); got != tokensFull {
		t.Errorf("a token too many: %v", got)
	}
	now = now.Add(time.Minute)
	if got := u.add(testTokenID(-1), tokenUse{"a", now.Add(time.Minute)}, now); got != tokenNew {
		t.Errorf("after half have expired: %v", got)
	}
	if n := len(u.tokens); n != maxUsedTokens/2+1 {
		t.Errorf("%d tokens are kept", n)
	}
	for i := 1; i < maxUsedTokens; i += 2 {
		if got := u.add(testTokenID(i), tokenUse{"a", now}, now); got != tokenUsed {
			t.Fatalf("token %d again: %v", i, got)
		}
	}
}

// An issuer has a share of the memory, which it gets back when its tokens expire.
func TestUsedTokensOfIssuer(t *testing.T) {
	t.Parallel()
	u := newUsedTokens(1000, 100)
	now := time.Now()
	add := func(i int, issuer string) tokenResult {
		return u.add(testTokenID(i), tokenUse{issuer, now.Add(time.Minute)}, now)
	}
	for i := range 100 {
		if got := add(i, "a"); got != tokenNew {
			t.Fatalf("token %d: %v", i, got)
		}
	}
	if got := add(100, "a"); got != tokensFull {
		t.Errorf("over the share: %v", got)
	}
	if got := add(100, "b"); got != tokenNew {
		t.Errorf("another issuer: %v", got)
	}
	now = now.Add(time.Minute)
	if got := add(101, "a"); got != tokenNew {
		t.Errorf("after all have expired: %v", got)
	}
	if len(u.tokens) != 1 || len(u.byIssuer) != 1 {
		t.Errorf("%d tokens of %d issuers are kept", len(u.tokens), len(u.byIssuer))
	}
}
