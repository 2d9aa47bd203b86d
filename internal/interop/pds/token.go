package pds

import (
	"fmt"
	"maps"

	"github.com/golang-jwt/jwt/v5"
)

// Forge makes a token from one that the server gave out: with what header and
// claims set, without what they set to nil, signed with the server's secret.
func (s *Server) Forge(token string, header, claims map[string]any) (string, error) {
	t, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		return "", fmt.Errorf("read a token of %s: %w", s.Name, err)
	}
	change(t.Header, header)
	change(t.Claims.(jwt.MapClaims), claims)
	var key any = s.Secret
	switch t.Header["alg"] {
	case "none":
		t.Method, key = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType
	case "HS512":
		t.Method = jwt.SigningMethodHS512
	}
	return t.SignedString(key)
}

func change(members, to map[string]any) {
	maps.Copy(members, to)
	for name, value := range to {
		if value == nil {
			delete(members, name)
		}
	}
}
