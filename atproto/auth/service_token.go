package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/golang-jwt/jwt/v5"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// Service tokens (https://atproto.com/specs/xrpc#inter-service-authentication-jwt).
//
// Another service calls us with a JWT that its account's key has signed: iss is
// its DID, aud ours, lxm the method, exp an expiry. A token is accepted if
//
//  1. aud, lxm, exp and the form of the token are valid. exp may be at most maxTokenLife
//     ahead, because the token has to be remembered until then. aud is our DID or one of
//     our services, "did:web:…#atcr_hold", or listed in Audiences. A DID does not stand
//     for its services.
//  2. iss is an account that the operator has configured. Tokens of other accounts are
//     refused before anything is fetched, so that strangers cannot make this hold send
//     requests, unless Pulls is PullsAnyone, or the account asks for its own data and has
//     data here; see unlisted.go for what bounds that.
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
	signatureSize   = 64               // bytes, of both algorithms
)

// Errors with the names of the reference server.
var (
	errBadJWT       = jwtError("BadJwt", "poorly formatted jwt")
	errBadSignature = jwtError("BadJwtSignature", "jwt signature does not match jwt issuer")

	// ErrTokenReplay means that the token was used before.
	ErrTokenReplay = jwtError("BadJwtReplay", "this jwt was used before; get a new one for each call")

	errNoData    = jwtError("AuthRequired", "this hold has no records of the issuer's")
	errNoCallers = xrpc.NewError(http.StatusForbidden, "Forbidden", "this hold accepts no such calls; its operator can allow them with hold.registries or hold.owners")
)

// ErrUnlisted refuses a call that needs a configured account.
func ErrUnlisted(did string) *xrpc.Error {
	return xrpc.Errorf(http.StatusForbidden, "Forbidden", "%.200s may not call; the operator of this hold can allow it with hold.registries or hold.owners", did)
}

func jwtError(name, format string, args ...any) *xrpc.Error {
	return xrpc.Errorf(http.StatusUnauthorized, name, format, args...)
}

// CallersConfig configures Callers.
type CallersConfig struct {
	Document   identity.Document              // of this hold
	Audiences  []string                       // accepted besides those of Document
	Registries []string                       // DIDs that may report images of any owner
	Owners     []string                       // DIDs that may report their own images, and pulls of any
	Pulls      Pulls                          // who else may report pulls; "": only the accounts above
	Own        func(did string) (bool, error) // whether an account has data here, which it may ask for; nil: none has
	PLC        string                         // directory of did:plc, https://host; empty: the public one
	Now        func() time.Time
	Metrics    *CallerMetrics // nil: none
}

// Callers are the accounts that may call with service tokens.
type Callers struct {
	doc       identity.Document
	audiences []string
	now       func() time.Time
	metrics   *CallerMetrics
	issuers   map[string]*issuer // by DID
	own       func(did string) (bool, error)
	anyone    bool      // unlisted accounts may report
	unlisted  *unlisted // nil: they may not call

	registries, owners *usedTokens
}

// Caller is the account of an authorized call; see xrpc.Call.Caller.
type Caller struct {
	DID      string
	Registry bool   // may report images of any owner
	Unlisted bool   // is not configured: may report pulls, or ask for its own data
	Token    string // ID of the token, unique for the account
}

// NewCallers returns the callers of a configuration. It fetches nothing.
func NewCallers(cfg CallersConfig) (*Callers, error) {
	c := &Callers{
		doc: cfg.Document, audiences: cfg.Audiences, now: cfg.Now, metrics: cfg.Metrics, issuers: map[string]*issuer{},
		registries: newUsedTokens(maxUsedTokens, maxUsedTokens), owners: newUsedTokens(maxUsedTokens, maxOwnerTokens),
	}
	for i, did := range append(append([]string{}, cfg.Registries...), cfg.Owners...) {
		if c.issuers[did] != nil {
			continue
		}
		source, err := identity.NewSource(did, cfg.PLC)
		if err != nil {
			return nil, fmt.Errorf("caller %q: %w", did, err)
		}
		c.issuers[did] = &issuer{did: did, registry: i < len(cfg.Registries), source: source, cache: keyCache{retry: keyRetry}}
	}
	c.anyone, c.own = cfg.Pulls == PullsAnyone, cfg.Own
	if c.anyone || c.own != nil {
		c.unlisted = newUnlisted(cfg)
	}
	return c, nil
}

// Authorize is the access of callers that report. It sets c.Caller.
func (a *Callers) Authorize(c *xrpc.Call) error {
	if len(a.issuers) == 0 && !a.anyone {
		a.metrics.Called(errNoCallers)
		return errNoCallers
	}
	return a.admit(c, func(did string) error {
		if !a.anyone {
			return ErrUnlisted(did)
		}
		return nil
	})
}

// AuthorizeOwn is the access to a method that serves an account its own data: of each account
// that has data here. It sets c.Caller.
func (a *Callers) AuthorizeOwn(c *xrpc.Call) error {
	return a.admit(c, func(did string) error {
		if a.own == nil {
			return errNoData
		}
		has, err := a.own(did)
		if err == nil && !has {
			err = errNoData
		}
		return err
	})
}

// admit authorizes a configured account, or an unlisted one for which check returns nil.
func (a *Callers) admit(c *xrpc.Call, check func(did string) error) error {
	caller, err := a.authorize(c, check)
	if err != nil {
		a.metrics.Called(err)
		return err
	}
	c.Caller = caller
	return nil
}

func (a *Callers) authorize(c *xrpc.Call, check func(did string) error) (Caller, error) {
	token, err := readServiceToken(c.Request)
	if err != nil {
		return Caller{}, err
	}
	now := a.now()
	if err := a.checkClaims(token, c.NSID, now); err != nil {
		return Caller{}, err
	}
	did, id := token.claims.Issuer, token.id()
	caller := Caller{DID: did, Token: base64.RawURLEncoding.EncodeToString(id[:])}
	from := a.issuers[did]
	if from != nil {
		caller.Registry = from.registry
		return caller, a.authorizeConfigured(c, from, token, now)
	}
	if err := check(did); err != nil {
		return caller, err
	}
	caller.Unlisted = true
	return caller, a.unlisted.authorize(c.Context(), token, clientaddr.Of(c.Request), now)
}

func (a *Callers) authorizeConfigured(c *xrpc.Call, from *issuer, token *serviceToken, now time.Time) error {
	err := verifySignature(token, func(maxAge time.Duration) (atcrypto.PublicKey, error) {
		return from.signingKey(c.Context(), now, maxAge)
	})
	if err != nil {
		return err
	}
	used := a.owners
	if from.registry {
		used = a.registries
	}
	return token.use(used, now)
}

// use notes the use of a token, which must be the first.
func (t *serviceToken) use(used *usedTokens, now time.Time) error {
	switch used.add(t.id(), tokenUse{t.claims.Issuer, t.claims.Expires.Time}, now) {
	case tokenUsed:
		return ErrTokenReplay
	case tokensFull:
		return xrpc.TooManyRequests(maxTokenLife)
	}
	return nil
}

// serviceToken is a decoded token that is not verified.
type serviceToken struct {
	header struct {
		Type      string `json:"typ"`
		Algorithm string `json:"alg"`
		Key       string `json:"kid"` // of the issuer's document; optional
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
	if err := t.checkForm(); err != nil {
		return err
	}
	claims := &t.claims
	switch {
	case claims.Issuer == "" || claims.Expires == nil || len(claims.Audience) != 1:
		return errBadJWT
	case !now.Before(claims.Expires.Time):
		return jwtError("JwtExpired", "jwt expired")
	case claims.Expires.After(now.Add(maxTokenLife + maxSkew)):
		return jwtError("BadJwtExpiration", "jwt expires more than %s from now", maxTokenLife)
	case !a.doc.HasAudience(claims.Audience[0]) && !slices.Contains(a.audiences, claims.Audience[0]):
		return jwtError("BadJwtAudience", "jwt audience does not match service did: it must be %s%s", a.doc.ID, identity.HoldService)
	case claims.Method == "":
		return jwtError("BadJwtLexiconMethod", `missing jwt lexicon method ("lxm"). must match: %s`, method)
	case claims.Method != method:
		return jwtError("BadJwtLexiconMethod", `bad jwt lexicon method ("lxm"). must match: %s`, method)
	}
	return nil
}

// checkForm checks what can be known of the signature without the issuer's key.
func (t *serviceToken) checkForm() error {
	iss, kid := t.claims.Issuer, t.header.Key
	switch {
	case t.header.Algorithm != "ES256" && t.header.Algorithm != "ES256K":
		return jwtError("BadJwtSignature", "jwt algorithm must be ES256 or ES256K")
	case len(t.signature) != signatureSize:
		return errBadSignature
	case strings.Contains(iss, "#"):
		return jwtError("BadJwtIss", "jwt issuer must be a DID without a fragment")
	case kid != "" && kid != "#atproto" && kid != iss+"#atproto":
		return jwtError("BadJwtSignature", "jwt must be signed with the #atproto key of its issuer")
	}
	return nil
}

// id identifies the token. jti is optional, as at the reference server; without
// it the token is identified by all that is signed.
func (t *serviceToken) id() tokenID {
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
