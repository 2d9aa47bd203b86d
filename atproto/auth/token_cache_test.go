package auth

import (
	"strconv"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestTokenCache(t *testing.T) {
	t.Parallel()
	var k tokenCache
	now := time.Now()
	one, two := []byte("one secret"), []byte("another one")
	c := claims{Session: "s", RegisteredClaims: jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute))}}
	know := func(token string, secret []byte, at time.Time, want bool) {
		t.Helper()
		got, ok := k.get(token, secret, at)
		if ok != want || ok && got.Session != "s" {
			t.Errorf("%s: got %v, %+v", token, ok, got)
		}
	}
	know("a", one, now, false)
	know("a", nil, now, false)
	k.add("a", one, c)
	know("a", one, now, true)
	know("b", one, now, false)
	know("a", two, now, false)
	know("a", one, c.ExpiresAt.Time, false)
	k.add("b", two, c)
	know("b", two, now, true)
	know("a", two, now, false) // of the old secret
	know("a", one, now, false)
	for i := range 3 * maxCachedTokens {
		k.add(strconv.Itoa(i), two, c)
		if len(k.tokens) > maxCachedTokens {
			t.Fatalf("%d tokens are kept", len(k.tokens))
		}
	}
}
