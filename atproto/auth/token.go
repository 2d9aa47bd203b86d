package auth

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// tokenKind is one of the two tokens of a session, with the names and lifetimes
// of the reference server.
type tokenKind struct {
	typ, scope string
	life       time.Duration
}

var (
	accessToken  = tokenKind{"at+jwt", "com.atproto.access", 2 * time.Hour}
	refreshToken = tokenKind{"refresh+jwt", "com.atproto.refresh", 90 * 24 * time.Hour}
)

var (
	errExpiredToken = xrpc.NewError(http.StatusBadRequest, "ExpiredToken", "Token has expired")
	errRevoked      = xrpc.NewError(http.StatusBadRequest, "ExpiredToken", "Token has been revoked")
	errInvalidToken = xrpc.NewError(http.StatusBadRequest, "InvalidToken", "Token could not be verified")
)

type claims struct {
	Scope   string `json:"scope"`
	Session string `json:"sid"`
	jwt.RegisteredClaims
}

// tokenSecret derives the key that signs session tokens from the account's signing
// key, so that no second secret has to be kept, and from the password's salt, so
// that a new password ends all sessions.
func tokenSecret(id identity.Identity, password passwordHash) ([]byte, error) {
	return hkdf.Key(sha256.New, id.Key.Bytes(), password.salt, "tidings hold session tokens of "+id.DID, 32)
}

// issue signs a token for the account did. id is the key of a refresh token in
// grants.
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

// verify accepts a token that issue returned for this kind, did and secret. For a
// token that is expired and otherwise valid it returns the claims together with
// errExpiredToken.
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
