package auth

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// Lifetimes of issued service tokens, as at the reference server.
const (
	defaultLife = time.Minute // also the longest without a method
	maxLife     = time.Hour   // with a method
)

// protectedMethods change the account itself; no service may call them on its
// behalf.
var protectedMethods = map[string]bool{
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

// serviceClaims are those of an issued service token.
type serviceClaims struct {
	IssuedAt int64  `json:"iat"`
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"`
	Method   string `json:"lxm,omitempty"`
	ID       string `json:"jti"`
}

// Sign issues a service token of an account for the service aud, a DID with or
// without a fragment. method may be empty, which limits the token to a minute;
// expires is in Unix seconds, 0 means in a minute. Errors are those of
// com.atproto.server.getServiceAuth.
func Sign(id identity.Identity, aud, method string, expires int64, now time.Time) (string, error) {
	claims := serviceClaims{
		IssuedAt: now.Unix(), Issuer: id.DID, Audience: aud,
		Expires: now.Add(defaultLife).Unix(), Method: method, ID: newTokenID(),
	}
	if !validAudience(aud) {
		return "", xrpc.InvalidRequest("aud must be a valid atproto DID or did#serviceId reference")
	}
	if expires != 0 {
		if err := checkExpiration(expires, method, now); err != nil {
			return "", err
		}
		claims.Expires = expires
	}
	if protectedMethods[method] {
		return "", xrpc.InvalidRequest("cannot request a service auth token for the following protected method: %s", method)
	}
	return claims.sign(id.Key)
}

func newTokenID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

func validAudience(aud string) bool {
	bare, fragment, found := strings.Cut(aud, "#")
	did, err := syntax.ParseDID(bare)
	if err != nil || found && (fragment == "" || strings.Contains(fragment, "#")) {
		return false
	}
	return did.Method() == "plc" || did.Method() == "web"
}

func checkExpiration(exp int64, method string, now time.Time) error {
	invalid := func(why string) error { return xrpc.NewError(http.StatusBadRequest, "BadExpiration", why) }
	switch life := max(exp, 0) - now.Unix(); { // in seconds: a Duration would overflow
	case life <= 0 && max(exp, 0)*1000 < now.UnixMilli():
		return invalid("expiration is in past")
	case life > int64(maxLife.Seconds()):
		return invalid("cannot request a token with an expiration more than an hour in the future")
	case method == "" && life > int64(defaultLife.Seconds()):
		return invalid("cannot request a method-less token with an expiration more than a minute in the future")
	}
	return nil
}

func (claims serviceClaims) sign(key atcrypto.PrivateKeyExportable) (string, error) {
	alg := "ES256K"
	if _, ok := key.(*atcrypto.PrivateKeyP256); ok {
		alg = "ES256"
	}
	header, err1 := json.Marshal(map[string]string{"typ": "JWT", "alg": alg})
	payload, err2 := json.Marshal(claims)
	if err1 != nil || err2 != nil {
		return "", fmt.Errorf("encode service token: %w %w", err1, err2)
	}
	encode := base64.RawURLEncoding.EncodeToString
	token := encode(header) + "." + encode(payload)
	sig, err := key.HashAndSign([]byte(token))
	if err != nil {
		return "", fmt.Errorf("sign service token: %w", err)
	}
	return token + "." + encode(sig), nil
}
