package hold

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

func nobody(*xrpc.Call) error { return nil }

// session lets a caller pass who presents an access token of a session that
// has not ended.
func (s *Server) session(c *xrpc.Call) error {
	token, err := s.authorize(c.Request, accessToken)
	// One without a session is of a version that had none, and ends soon.
	if err == nil && token.Session != "" && !s.sessions.alive(token.Session, s.now()) {
		err = errRevoked
	}
	return err
}

// authorize reads a token of kind. An expired one comes with errExpiredToken.
func (s *Server) authorize(r *http.Request, kind tokenKind) (claims, error) {
	if !s.login {
		return claims{}, errNoLogins
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return claims{}, xrpc.ErrAuthMissing
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return claims{}, xrpc.NewError(http.StatusBadRequest, "InvalidToken", "Unexpected authorization type")
	}
	secret, err := s.tokenSecret()
	if errors.Is(err, errNoPassword) {
		return claims{}, errInvalidToken
	}
	if err != nil {
		return claims{}, err
	}
	if kind == accessToken {
		if c, ok := s.known.get(token, secret, s.now()); ok {
			return c, nil
		}
	}
	c, err := kind.verify(token, s.id.DID, secret, s.now())
	if err == nil && kind == accessToken {
		s.known.add(token, secret, c)
	}
	return c, err
}

// secretCache is the secret of tokens and the password file that it is of.
type secretCache struct {
	mu     sync.Mutex
	file   fs.FileInfo
	secret []byte
}

// tokenSecret follows the password file, so that a new password ends the
// sessions of the old one at once.
func (s *Server) tokenSecret() ([]byte, error) {
	file, err := os.Stat(s.passwordFile)
	if err != nil {
		file = nil // and who reads it says why
	}
	c := &s.secret
	c.mu.Lock()
	defer c.mu.Unlock()
	if file != nil && c.file != nil && os.SameFile(file, c.file) &&
		file.ModTime().Equal(c.file.ModTime()) && file.Size() == c.file.Size() && file.Mode() == c.file.Mode() {
		return c.secret, nil
	}
	password, err := loadPassword(s.passwordFile)
	if err != nil {
		return nil, err
	}
	secret, err := tokenSecret(s.id, password)
	if err == nil {
		c.file, c.secret = file, secret
	}
	return secret, err
}

// sessionAnswer is what the session methods tell of the account. The tokens
// are left out by getSession.
type sessionAnswer struct {
	AccessJWT  string            `json:"accessJwt,omitempty"`
	RefreshJWT string            `json:"refreshJwt,omitempty"`
	Handle     string            `json:"handle"`
	DID        string            `json:"did"`
	DIDDoc     identity.Document `json:"didDoc"`
	Active     bool              `json:"active"`
	Status     string            `json:"status,omitempty"` // if it is not
}

func (s *Server) account() sessionAnswer {
	status := s.status()
	return sessionAnswer{Handle: s.id.Handle, DID: s.id.DID, DIDDoc: s.doc, Active: status == "", Status: status}
}

// sessionTokens is the account with both tokens of a session.
func (s *Server) sessionTokens(session, refreshID string) (any, error) {
	secret, err := s.tokenSecret()
	if err != nil {
		return nil, err
	}
	answer, now := s.account(), s.now()
	var err1, err2 error
	answer.AccessJWT, err1 = accessToken.issue(s.id.DID, session, rand.Text(), secret, now)
	answer.RefreshJWT, err2 = refreshToken.issue(s.id.DID, session, refreshID, secret, now)
	return answer, errors.Join(err1, err2)
}

var errNoLogins = xrpc.NewError(http.StatusUnauthorized, "AuthenticationRequired", "this hold takes no logins; its operator allows them with hold.login: true")
