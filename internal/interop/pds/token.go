package pds

import (
	"fmt"
	"maps"

	"github.com/golang-jwt/jwt/v5"
)

// Forge returns a changed token, signed with the server's secret: the members of header
// and claims are set, or removed if they are nil.
func (s *Server) Forge(token string, header, claims map[string]any) (string, error) {
	t, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		return "", fmt.Errorf("parse a token of %s: %w", s.Name, err)
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
