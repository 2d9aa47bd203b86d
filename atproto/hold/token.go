package hold

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"

	"github.com/golang-jwt/jwt/v5"
)

// tokenKind is one of the two tokens of a session, by the names and lifetimes
// of the reference server.
type tokenKind struct {
	typ, scope string
	life       time.Duration
}

var (
	accessToken  = tokenKind{"at+jwt", "com.atproto.access", 2 * time.Hour}
	refreshToken = tokenKind{"refresh+jwt", "com.atproto.refresh", 90 * 24 * time.Hour}
)

type claims struct {
	Scope   string `json:"scope"`
	Session string `json:"sid"`
	jwt.RegisteredClaims
}

// tokenSecret signs session tokens. It is derived from the signing key, so
// there is no second secret to keep, and from the password's salt, so a new
// password ends all sessions.
func tokenSecret(id identity.Identity, password passwordHash) ([]byte, error) {
	return hkdf.Key(sha256.New, id.Key.Bytes(), password.salt, "tidings hold session tokens of "+id.DID, 32)
}

// issue signs a token of kind for the account did. Its id is what sessions
// knows a refresh token by.
func (kind tokenKind) issue(did, session, id string, secret []byte, now time.Time) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{kind.scope, session, jwt.RegisteredClaims{
		Subject:   did,
		Audience:  jwt.ClaimStrings{did},
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(kind.life)),
		ID:        id,
	}})
	token.Header["typ"] = kind.typ
	signed, err := token.SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}

var (
	errExpiredToken = xrpc.NewError(400, "ExpiredToken", "Token has expired")
	errInvalidToken = xrpc.NewError(400, "InvalidToken", "Token could not be verified")
)

// verify accepts a token of kind that issue made for did with this secret. What
// an expired one claims is told too, beside errExpiredToken.
func (kind tokenKind) verify(token, did string, secret []byte, now time.Time) (claims, error) {
	var c claims
	parsed, err := jwt.ParseWithClaims(token, &c,
		func(*jwt.Token) (any, error) { return secret, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithAudience(did), jwt.WithSubject(did),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(func() time.Time { return now }),
	)
	expired := errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) &&
		!errors.Is(err, jwt.ErrTokenInvalidAudience) && !errors.Is(err, jwt.ErrTokenInvalidSubject)
	if err != nil && !expired || parsed.Header["typ"] != kind.typ || c.Scope != kind.scope {
		return claims{}, errInvalidToken
	}
	if expired {
		return c, errExpiredToken
	}
	return c, nil
}
