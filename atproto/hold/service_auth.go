package hold

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/golang-jwt/jwt/v5"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const (
	// maxServiceLife is how far ahead a token may end. Tokens are kept until
	// then, for each is good once.
	maxServiceLife = 5 * time.Minute
	// maxSkew is how far ahead of ours a caller's clock may be.
	maxSkew = 10 * time.Second

	maxServiceToken = 8 << 10 // bytes
)

// caller is who a service token is of.
type caller struct {
	did      string
	registry bool   // may speak of any owner's images
	token    string // names the token
}

// serviceToken is a token of another service as it is presented
// (https://atproto.com/specs/xrpc#inter-service-authentication-jwt).
type serviceToken struct {
	header struct {
		Type      string `json:"typ"`
		Algorithm string `json:"alg"`
	}
	claims struct {
		Issuer   string           `json:"iss"`
		Audience jwt.ClaimStrings `json:"aud"` // one; some write it as a list
		Expires  *jwt.NumericDate `json:"exp"`
		Method   string           `json:"lxm"`
		ID       string           `json:"jti"`
	}
	signed, signature []byte
}

// Errors as the reference server names them.
func badToken(name, format string, args ...any) *xrpc.Error {
	return xrpc.Errorf(http.StatusUnauthorized, name, format, args...)
}

var (
	errBadJWT       = badToken("BadJwt", "poorly formatted jwt")
	errBadSignature = badToken("BadJwtSignature", "jwt signature does not match jwt issuer")

	// ErrUsedToken is for a token that was presented before.
	ErrUsedToken = badToken("BadJwtReplay", "this jwt was used before; get a new one for each call")

	errNoCallers = xrpc.NewError(http.StatusForbidden, "Forbidden", "this hold takes no such calls; its operator allows them with hold.registries or hold.owners")
)

// service lets an account pass that the operator named and that presents a
// token for this call. Only such accounts are looked up: nobody else can have
// this hold ask another server.
//
// indigo's ServiceAuthValidator is not used because it takes tokens of any
// length, and twice, and asks for a key anew at each bad signature.
func (s *Server) service(c *xrpc.Call) error {
	if len(s.callers) == 0 {
		return errNoCallers
	}
	token, err := readServiceToken(c.Request)
	if err != nil {
		return err
	}
	now := s.now()
	if err := s.checkClaims(token, c.NSID, now); err != nil {
		return err
	}
	from := s.callers[token.claims.Issuer]
	if from == nil {
		return xrpc.Errorf(http.StatusForbidden, "Forbidden", "%.200s is not among those who may call; this hold's operator names them with hold.registries or hold.owners", token.claims.Issuer)
	}
	if err := from.verify(c.Context(), token, now); err != nil {
		return err
	}
	id := token.id()
	switch s.tokens.use(id, token.claims.Expires.Time, now) {
	case usedBefore:
		return ErrUsedToken
	case noRoom:
		return xrpc.TooManyRequests(maxServiceLife)
	}
	c.Caller = caller{token.claims.Issuer, from.registry, base64.RawURLEncoding.EncodeToString(id[:])}
	return nil
}

func readServiceToken(r *http.Request) (*serviceToken, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, xrpc.ErrAuthMissing
	}
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, badToken("BadJwt", "this method takes a service token: Authorization: Bearer …")
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 || len(text) > maxServiceToken {
		return nil, errBadJWT
	}
	t := &serviceToken{signed: []byte(parts[0] + "." + parts[1])}
	var err error
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

// checkClaims looks at what a token says it is for.
func (s *Server) checkClaims(t *serviceToken, method string, now time.Time) error {
	switch strings.ToLower(t.header.Type) {
	case accessToken.typ, refreshToken.typ, "dpop+jwt":
		return badToken("BadJwtType", "Invalid jwt type %q", t.header.Type)
	}
	claims := &t.claims
	switch {
	case claims.Issuer == "" || claims.Expires == nil || len(claims.Audience) != 1:
		return errBadJWT
	case !now.Before(claims.Expires.Time):
		return badToken("JwtExpired", "jwt expired")
	case claims.Expires.After(now.Add(maxServiceLife + maxSkew)):
		return badToken("BadJwtExpiration", "jwt expires more than %s from now", maxServiceLife)
	case !s.doc.HasAudience(claims.Audience[0]):
		return badToken("BadJwtAudience", "jwt audience does not match service did: it must be %s", s.id.DID)
	case claims.Method == "":
		return badToken("BadJwtLexiconMethod", `missing jwt lexicon method ("lxm"). must match: %s`, method)
	case claims.Method != method:
		return badToken("BadJwtLexiconMethod", `bad jwt lexicon method ("lxm"). must match: %s`, method)
	}
	return nil
}

// id tells tokens apart. The reference server asks for no jti, so a token may
// have none: then it is known by all that is signed.
func (t *serviceToken) id() [sha256.Size]byte {
	if t.claims.ID == "" {
		return sha256.Sum256(append([]byte("token\x00"), t.signed...))
	}
	return sha256.Sum256([]byte("jti\x00" + t.claims.Issuer + "\x00" + t.claims.ID))
}

// signedBy says whether the token was signed with a key. As the reference
// server does it takes both forms of a signature: tokens are not told apart by
// it.
func (t *serviceToken) signedBy(key atcrypto.PublicKey) bool {
	algorithm := "ES256K"
	if _, ok := key.(*atcrypto.PublicKeyP256); ok {
		algorithm = "ES256"
	}
	return t.header.Algorithm == algorithm && key.HashAndVerifyLenient(t.signed, t.signature) == nil
}
