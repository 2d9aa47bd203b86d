package hold

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// Lifetimes of a service token, as the reference server grants them.
const (
	serviceLife      = time.Minute // when none is asked for, and at most without a method
	serviceLifeBound = time.Hour   // at most, bound to a method
)

// unlent are methods that change the account itself: nobody is to call them in
// its name.
var unlent = map[string]bool{
	"com.atproto.admin.sendEmail":                       true,
	"com.atproto.identity.requestPlcOperationSignature": true,
	"com.atproto.identity.signPlcOperation":             true,
	"com.atproto.identity.updateHandle":                 true,
	"com.atproto.server.activateAccount":                true,
	"com.atproto.server.confirmEmail":                   true,
	"com.atproto.server.createAppPassword":              true,
	"com.atproto.server.deactivateAccount":              true,
	"com.atproto.server.getAccountInviteCodes":          true,
	"com.atproto.server.getSession":                     true,
	"com.atproto.server.listAppPasswords":               true,
	"com.atproto.server.requestAccountDelete":           true,
	"com.atproto.server.requestEmailConfirmation":       true,
	"com.atproto.server.requestEmailUpdate":             true,
	"com.atproto.server.revokeAppPassword":              true,
	"com.atproto.server.updateEmail":                    true,
}

// serviceClaims is https://atproto.com/specs/xrpc#inter-service-authentication-jwt.
type serviceClaims struct {
	IssuedAt int64  `json:"iat"`
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"`
	Method   string `json:"lxm,omitempty"`
	ID       string `json:"jti"`
}

// getServiceAuth is com.atproto.server.getServiceAuth: a token, signed with the
// account's key, by which another service knows the account.
func (s *Server) getServiceAuth(c *xrpc.Call) (any, error) {
	now := s.now()
	claims := serviceClaims{
		IssuedAt: now.Unix(), Issuer: s.id.DID, Audience: c.Param("aud"),
		Expires: now.Add(serviceLife).Unix(), Method: c.Param("lxm"), ID: serviceTokenID(),
	}
	if !isService(claims.Audience) {
		return nil, xrpc.InvalidRequest("aud must be a valid atproto DID or did#serviceId reference")
	}
	if asked, _ := c.Params["exp"].(int64); asked != 0 {
		if err := checkServiceLife(asked, claims.Method, now); err != nil {
			return nil, err
		}
		claims.Expires = asked
	}
	if unlent[claims.Method] {
		return nil, xrpc.InvalidRequest("cannot request a service auth token for the following protected method: %s", claims.Method)
	}
	token, err := s.signService(claims)
	if err != nil {
		return nil, err
	}
	return map[string]string{"token": token}, nil
}

func serviceTokenID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// isService says whether aud is a DID of the kinds in use, with or without the
// name of a service in it.
func isService(aud string) bool {
	bare, name, named := strings.Cut(aud, "#")
	did, err := syntax.ParseDID(bare)
	if err != nil || named && (name == "" || strings.Contains(name, "#")) {
		return false
	}
	return did.Method() == "plc" || did.Method() == "web"
}

// checkServiceLife refuses an end, in unix seconds, that is over or too far.
func checkServiceLife(exp int64, method string, now time.Time) error {
	bad := func(why string) error { return xrpc.NewError(400, "BadExpiration", why) }
	switch life := max(exp, 0) - now.Unix(); { // seconds, for a far exp has no Duration
	case life <= 0 && max(exp, 0)*1000 < now.UnixMilli():
		return bad("expiration is in past")
	case life > int64(serviceLifeBound.Seconds()):
		return bad("cannot request a token with an expiration more than an hour in the future")
	case method == "" && life > int64(serviceLife.Seconds()):
		return bad("cannot request a method-less token with an expiration more than a minute in the future")
	}
	return nil
}

func (s *Server) signService(claims serviceClaims) (string, error) {
	alg := "ES256K"
	if _, ok := s.id.Key.(*atcrypto.PrivateKeyP256); ok {
		alg = "ES256"
	}
	header, err1 := json.Marshal(map[string]string{"typ": "JWT", "alg": alg})
	payload, err2 := json.Marshal(claims)
	if err1 != nil || err2 != nil {
		return "", fmt.Errorf("encode service token: %w %w", err1, err2)
	}
	encode := base64.RawURLEncoding.EncodeToString
	token := encode(header) + "." + encode(payload)
	sig, err := s.id.Key.HashAndSign([]byte(token))
	if err != nil {
		return "", fmt.Errorf("sign service token: %w", err)
	}
	return token + "." + encode(sig), nil
}
