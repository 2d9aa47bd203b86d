package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/golang-jwt/jwt/v5"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// Service tokens (https://atproto.com/specs/xrpc#inter-service-authentication-jwt).
//
// Another service calls us with a JWT that its account's key has signed: iss is
// its DID, aud ours, lxm the method, exp an expiry. A token is accepted if
//
//  1. iss is one of the accounts that the operator has named. Tokens of all other
//     accounts are refused before anything is fetched, so that strangers cannot
//     make this hold send requests.
//  2. aud, lxm and exp are valid. exp may be at most maxTokenLife ahead, because
//     the token has to be remembered until then.
//  3. The #atproto key in the DID document of iss verifies the signature. The key
//     is cached. After an invalid signature the document is fetched again, since
//     the account may have a new key, but at most once in keyRefetch: anyone can
//     send invalid signatures.
//  4. It was not used before. usedTokens has the used tokens until they expire, by
//     jti or, if there is none, by all that is signed. It is in memory and is
//     empty after a restart, so that a token which was used just before could be
//     used once more. Therefore the handler gets the token's ID with the Caller,
//     and records it together with the event that it stores: the same token does
//     not make a second event even across a crash. If usedTokens is full, the call
//     is refused with 429; an unexpired token is never forgotten.
//
// The signature is checked before the token counts as used, so that no one can
// use up the token of another account. indigo's ServiceAuthValidator is not used:
// it accepts tokens of any length and more than once, and fetches a document for
// every invalid signature.
const (
	maxTokenLife    = 5 * time.Minute
	maxSkew         = 10 * time.Second // how far a caller's clock may be ahead of ours
	maxServiceToken = 8 << 10          // bytes
)

// Errors with the names of the reference server.
var (
	errBadJWT       = jwtError("BadJwt", "poorly formatted jwt")
	errBadSignature = jwtError("BadJwtSignature", "jwt signature does not match jwt issuer")

	// ErrTokenReplay means that the token was used before.
	ErrTokenReplay = jwtError("BadJwtReplay", "this jwt was used before; get a new one for each call")

	errNoCallers = xrpc.NewError(http.StatusForbidden, "Forbidden", "this hold accepts no such calls; its operator can allow them with hold.registries or hold.owners")
)

func jwtError(name, format string, args ...any) *xrpc.Error {
	return xrpc.Errorf(http.StatusUnauthorized, name, format, args...)
}

// CallersConfig configures Callers.
type CallersConfig struct {
	Document   identity.Document // of this hold
	Registries []string          // DIDs that may report images of any owner
	Owners     []string          // DIDs that may report their own images
	PLC        string            // directory of did:plc, https://host; empty: the public one
	Now        func() time.Time
}

// Callers are the accounts that may call with service tokens.
type Callers struct {
	doc     identity.Document
	now     func() time.Time
	issuers map[string]*issuer // by DID
	used    usedTokens
}

// Caller is the account of an authorized call; see xrpc.Call.Caller.
type Caller struct {
	DID      string
	Registry bool   // may report images of any owner
	Token    string // ID of the token, unique for the account
}

// NewCallers returns the callers of a configuration. It fetches nothing.
func NewCallers(cfg CallersConfig) (*Callers, error) {
	c := &Callers{doc: cfg.Document, now: cfg.Now, issuers: map[string]*issuer{}}
	for i, did := range append(append([]string{}, cfg.Registries...), cfg.Owners...) {
		if c.issuers[did] != nil {
			continue
		}
		source, err := identity.NewSource(did, cfg.PLC)
		if err != nil {
			return nil, fmt.Errorf("caller %q: %w", did, err)
		}
		c.issuers[did] = &issuer{did: did, registry: i < len(cfg.Registries), source: source}
	}
	return c, nil
}

// Authorize is the access of callers. It sets c.Caller.
func (a *Callers) Authorize(c *xrpc.Call) error {
	if len(a.issuers) == 0 {
		return errNoCallers
	}
	token, err := readServiceToken(c.Request)
	if err != nil {
		return err
	}
	now := a.now()
	if err := a.checkClaims(token, c.NSID, now); err != nil {
		return err
	}
	from := a.issuers[token.claims.Issuer]
	if from == nil {
		return xrpc.Errorf(http.StatusForbidden, "Forbidden", "%.200s may not call; the operator of this hold can allow it with hold.registries or hold.owners", token.claims.Issuer)
	}
	if err := from.verify(c.Context(), token, now); err != nil {
		return err
	}
	id := token.id()
	switch a.used.add(id, token.claims.Expires.Time, now) {
	case tokenUsed:
		return ErrTokenReplay
	case tokensFull:
		return xrpc.TooManyRequests(maxTokenLife)
	}
	c.Caller = Caller{token.claims.Issuer, from.registry, base64.RawURLEncoding.EncodeToString(id[:])}
	return nil
}

// serviceToken is a decoded token that is not verified.
type serviceToken struct {
	header struct {
		Type      string `json:"typ"`
		Algorithm string `json:"alg"`
	}
	claims struct {
		Issuer   string           `json:"iss"`
		Audience jwt.ClaimStrings `json:"aud"` // one; some clients send a list
		Expires  *jwt.NumericDate `json:"exp"`
		Method   string           `json:"lxm"`
		ID       string           `json:"jti"`
	}
	signed, signature []byte
}

func readServiceToken(r *http.Request) (*serviceToken, error) {
	text, err := bearer(r, jwtError("BadJwt", "this method requires a service token: Authorization: Bearer …"))
	if err != nil {
		return nil, err
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 || len(text) > maxServiceToken {
		return nil, errBadJWT
	}
	t := &serviceToken{signed: []byte(parts[0] + "." + parts[1])}
	if t.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, errBadJWT
	}
	for i, into := range []any{&t.header, &t.claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, into) != nil {
			return nil, errBadJWT
		}
	}
	return t, nil
}

func (a *Callers) checkClaims(t *serviceToken, method string, now time.Time) error {
	switch strings.ToLower(t.header.Type) {
	case accessToken.typ, refreshToken.typ, "dpop+jwt":
		return jwtError("BadJwtType", "Invalid jwt type %q", t.header.Type)
	}
	claims := &t.claims
	switch {
	case claims.Issuer == "" || claims.Expires == nil || len(claims.Audience) != 1:
		return errBadJWT
	case !now.Before(claims.Expires.Time):
		return jwtError("JwtExpired", "jwt expired")
	case claims.Expires.After(now.Add(maxTokenLife + maxSkew)):
		return jwtError("BadJwtExpiration", "jwt expires more than %s from now", maxTokenLife)
	case !a.doc.HasAudience(claims.Audience[0]):
		return jwtError("BadJwtAudience", "jwt audience does not match service did: it must be %s", a.doc.ID)
	case claims.Method == "":
		return jwtError("BadJwtLexiconMethod", `missing jwt lexicon method ("lxm"). must match: %s`, method)
	case claims.Method != method:
		return jwtError("BadJwtLexiconMethod", `bad jwt lexicon method ("lxm"). must match: %s`, method)
	}
	return nil
}

// id identifies the token. jti is optional, as at the reference server; without
// it the token is identified by all that is signed.
func (t *serviceToken) id() [sha256.Size]byte {
	if t.claims.ID == "" {
		return sha256.Sum256(append([]byte("token\x00"), t.signed...))
	}
	return sha256.Sum256([]byte("jti\x00" + t.claims.Issuer + "\x00" + t.claims.ID))
}

// signedBy verifies the signature. Like the reference server it accepts both forms
// of an ECDSA signature, which is why id does not include it.
func (t *serviceToken) signedBy(key atcrypto.PublicKey) bool {
	algorithm := "ES256K"
	if _, ok := key.(*atcrypto.PublicKeyP256); ok {
		algorithm = "ES256"
	}
	return t.header.Algorithm == algorithm && key.HashAndVerifyLenient(t.signed, t.signature) == nil
}
