package hold

import (
	"errors"
	"net/http"
	"strings"
)

func nobody(*http.Request) error { return nil }

// session lets a caller pass who presents an access token.
func (s *Server) session(r *http.Request) error { return s.authorize(r, accessToken) }

// refresher lets a caller pass who presents a refresh token.
func (s *Server) refresher(r *http.Request) error { return s.authorize(r, refreshToken) }

func (s *Server) authorize(r *http.Request, kind tokenKind) error {
	if !s.login {
		return errNoLogins
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return errAuthMissing
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return &Error{http.StatusBadRequest, "InvalidToken", "Unexpected authorization type"}
	}
	secret, err := s.tokenSecret()
	if errors.Is(err, errNoPassword) {
		return errInvalidToken
	}
	if err != nil {
		return err
	}
	return kind.verify(token, s.id.DID, secret, s.now())
}

// tokenSecret follows the password file, so that a new password ends the
// sessions of the old one at once.
func (s *Server) tokenSecret() ([]byte, error) {
	password, err := loadPassword(s.passwordFile)
	if err != nil {
		return nil, err
	}
	return tokenSecret(s.id, password)
}

// sessionAnswer is what the session methods tell of the account. The tokens
// are left out by getSession.
type sessionAnswer struct {
	AccessJWT  string      `json:"accessJwt,omitempty"`
	RefreshJWT string      `json:"refreshJwt,omitempty"`
	Handle     string      `json:"handle"`
	DID        string      `json:"did"`
	DIDDoc     didDocument `json:"didDoc"`
	Active     bool        `json:"active"`
}

func (s *Server) account() sessionAnswer {
	return sessionAnswer{Handle: s.id.Handle, DID: s.id.DID, DIDDoc: s.doc, Active: true}
}

// newSession is an account with both tokens.
func (s *Server) newSession(secret []byte) (sessionAnswer, error) {
	answer, now := s.account(), s.now()
	var err1, err2 error
	answer.AccessJWT, err1 = accessToken.issue(s.id.DID, secret, now)
	answer.RefreshJWT, err2 = refreshToken.issue(s.id.DID, secret, now)
	return answer, errors.Join(err1, err2)
}
