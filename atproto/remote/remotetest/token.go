package remotetest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// longestLife is how far ahead the expiry of a token may be: a minute, and clocks differ.
const longestLife = 100 * time.Second

type claims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Method   string `json:"lxm"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
}

// verify verifies a token and uses it up. The caller must hold mu.
func (s *Server) verify(token, method string) (c claims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, errors.New("a service token is required")
	}
	var decoded [3][]byte
	for i, part := range parts {
		if decoded[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return c, errors.New("malformed token")
		}
	}
	var header struct{ Alg, Typ string }
	if json.Unmarshal(decoded[0], &header) != nil || json.Unmarshal(decoded[1], &c) != nil {
		return c, errors.New("malformed token")
	}
	if err := s.checkClaims(c, method); err != nil {
		return c, err
	}
	key := s.trusted[c.Issuer]
	if key == nil {
		return c, fmt.Errorf("%s is not a member of this hold", c.Issuer)
	}
	algorithm := "ES256K"
	if _, ok := key.(*atcrypto.PublicKeyP256); ok {
		algorithm = "ES256"
	}
	if header.Alg != algorithm || header.Typ != "JWT" || key.HashAndVerify([]byte(parts[0]+"."+parts[1]), decoded[2]) != nil {
		return c, errors.New("invalid signature")
	}
	if s.used[c.ID] {
		return c, errors.New("the token was used before")
	}
	s.used[c.ID] = true
	return c, nil
}

func (s *Server) checkClaims(c claims, method string) error {
	fragment, ours := strings.CutPrefix(c.Audience, s.DID)
	now := s.now()
	switch expires := time.Unix(c.Expires, 0); {
	case !ours || !slices.Contains(s.cfg.Audiences, fragment):
		return fmt.Errorf("token audience mismatch: got %s", c.Audience)
	case c.Method != method:
		return fmt.Errorf("token lxm is %q", c.Method)
	case !now.Before(expires):
		return errors.New("the token has expired")
	case expires.After(now.Add(longestLife)):
		return errors.New("the token expires too late")
	case c.ID == "":
		return errors.New("the token has no jti")
	}
	return nil
}
