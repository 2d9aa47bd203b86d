package pds

import (
	"maps"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Token is an access token as the server makes them, but for what is set in
// header and claims; nil takes a member away.
func (s *Server) Token(header, claims map[string]any) string {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"scope": "com.atproto.access", "sub": s.DID, "aud": s.Audience,
		"iat": now.Unix(), "exp": now.Add(2 * time.Hour).Unix(), "jti": "made-by-a-test",
	})
	t.Header["typ"] = "at+jwt"
	maps.Copy(t.Header, header)
	maps.Copy(t.Claims.(jwt.MapClaims), claims)
	for name, value := range header {
		if value == nil {
			delete(t.Header, name)
		}
	}
	for name, value := range claims {
		if value == nil {
			delete(t.Claims.(jwt.MapClaims), name)
		}
	}
	var key any = s.Secret
	switch t.Header["alg"] {
	case "none":
		t.Method, key = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType
	case "HS512":
		t.Method = jwt.SigningMethodHS512
	}
	signed, err := t.SignedString(key)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return signed
}
