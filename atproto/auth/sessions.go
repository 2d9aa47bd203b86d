package auth

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// Limits for the body of a login, which anyone can send.
const (
	MaxLogin     = 8 << 10 // bytes
	loginTimeout = 5 * time.Second
)

var (
	errNoLogins = xrpc.NewError(http.StatusUnauthorized, "AuthenticationRequired", "this hold accepts no logins; its operator can allow them with hold.login: true")
	errBadLogin = xrpc.NewError(http.StatusUnauthorized, "AuthenticationRequired", "Invalid identifier or password")
)

// SessionConfig configures Sessions. All fields but Login are required.
type SessionConfig struct {
	Identity     identity.Identity
	Login        bool   // the owner may log in; otherwise every token is refused as well
	PasswordFile string // written by SetPassword, read at each login. Grants are in a file next to it
	Now          func() time.Time
	Logger       *slog.Logger
}

// Sessions are the sessions of the account's owner.
type Sessions struct {
	cfg      SessionConfig
	grants   *grants
	secret   secretCache
	verified tokenCache
	limit    *loginLimiter
	correct  *correctPassword
}

// Tokens are the two tokens of a session.
type Tokens struct{ Access, Refresh string }

// OpenSessions loads the sessions that were not ended.
func OpenSessions(cfg SessionConfig) (*Sessions, error) {
	g, err := openGrants(cfg.PasswordFile+".sessions", cfg.Logger)
	if err != nil {
		return nil, err
	}
	return &Sessions{cfg: cfg, grants: g, limit: newLoginLimiter(), correct: newCorrectPassword()}, nil
}

// AllowLogin is the access to createSession. It limits the body.
func (s *Sessions) AllowLogin(c *xrpc.Call) error {
	if !s.cfg.Login {
		return errNoLogins
	}
	c.InputLimit = MaxLogin
	c.LimitBodyTime(loginTimeout)
	return nil
}

// Authorize is the access of the account's owner: an access token of a session
// that was not ended.
func (s *Sessions) Authorize(c *xrpc.Call) error {
	token, err := s.authorize(c.Request, accessToken)
	// Tokens of versions before sessions have none; they expire soon.
	if err == nil && token.Session != "" && !s.grants.alive(token.Session, s.cfg.Now()) {
		err = errRevoked
	}
	return err
}

// Create begins a session with the identifier and password of a login.
func (s *Sessions) Create(c *xrpc.Call) (Tokens, error) {
	identifier, password := c.Field("identifier"), c.Field("password")
	stored, err := loadPassword(s.cfg.PasswordFile)
	if errors.Is(err, errNoPassword) {
		return Tokens{}, xrpc.NewError(http.StatusUnauthorized, "AuthenticationRequired", errNoPassword.Error())
	}
	if err != nil {
		return Tokens{}, err
	}
	ours := s.cfg.Identity.Matches(identifier)
	correct := s.correct.equals(stored, password)
	if !correct {
		from := attempt{clientaddr.Of(c.Request), ours}
		if correct, err = s.limit.check(c.Context(), from, stored, password, s.cfg.Now()); err != nil {
			return Tokens{}, err
		}
	}
	if !correct || !ours {
		return Tokens{}, errBadLogin
	}
	s.correct.remember(stored, password)
	session, id, err := s.grants.begin(s.cfg.Now())
	if err != nil {
		return Tokens{}, err
	}
	return s.issue(session, id)
}

// Refresh exchanges a refresh token. The token stays valid for a while and always
// gets the same successor.
func (s *Sessions) Refresh(c *xrpc.Call) (Tokens, error) {
	token, err := s.authorize(c.Request, refreshToken)
	if err != nil {
		return Tokens{}, err
	}
	session, id, err := s.grants.rotate(token.ID, s.cfg.Now())
	if err != nil {
		return Tokens{}, err
	}
	return s.issue(session, id)
}

// Delete ends the session of a refresh token, which may be expired. Its access
// tokens end as well; at the reference server they stay valid.
func (s *Sessions) Delete(c *xrpc.Call) error {
	token, err := s.authorize(c.Request, refreshToken)
	if err != nil && (err != errExpiredToken || token.Session == "") {
		return err
	}
	return s.grants.end(token.Session, s.cfg.Now())
}

// authorize reads a token of a kind. For an expired one it returns the claims
// together with errExpiredToken.
func (s *Sessions) authorize(r *http.Request, kind tokenKind) (claims, error) {
	if !s.cfg.Login {
		return claims{}, errNoLogins
	}
	token, err := bearer(r, xrpc.NewError(http.StatusBadRequest, "InvalidToken", "Unexpected authorization type"))
	if err != nil {
		return claims{}, err
	}
	secret, err := s.tokenSecret()
	if errors.Is(err, errNoPassword) {
		return claims{}, errInvalidToken
	}
	if err != nil {
		return claims{}, err
	}
	now := s.cfg.Now()
	if kind == accessToken {
		if c, ok := s.verified.get(token, secret, now); ok {
			return c, nil
		}
	}
	c, err := kind.verify(token, s.cfg.Identity.DID, secret, now)
	if err == nil && kind == accessToken {
		s.verified.add(token, secret, c)
	}
	return c, err
}

// bearer returns the token of the Authorization header; wrongScheme is the error
// for another scheme than Bearer.
func bearer(r *http.Request, wrongScheme error) (string, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", xrpc.ErrAuthMissing
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", wrongScheme
	}
	return token, nil
}

func (s *Sessions) issue(session, refreshID string) (t Tokens, err error) {
	secret, err := s.tokenSecret()
	if err != nil {
		return t, err
	}
	did, now := s.cfg.Identity.DID, s.cfg.Now()
	var err1, err2 error
	t.Access, err1 = accessToken.issue(did, session, rand.Text(), secret, now)
	t.Refresh, err2 = refreshToken.issue(did, session, refreshID, secret, now)
	return t, errors.Join(err1, err2)
}

// secretCache keeps the secret of tokens until the password file changes.
type secretCache struct {
	mu     sync.Mutex
	file   fs.FileInfo
	secret []byte
}

// tokenSecret follows the password file, so that a new password ends the sessions
// at once.
func (s *Sessions) tokenSecret() ([]byte, error) {
	file, err := os.Stat(s.cfg.PasswordFile)
	if err != nil {
		file = nil // loadPassword returns the reason
	}
	c := &s.secret
	c.mu.Lock()
	defer c.mu.Unlock()
	if file != nil && c.file != nil && os.SameFile(file, c.file) &&
		file.ModTime().Equal(c.file.ModTime()) && file.Size() == c.file.Size() && file.Mode() == c.file.Mode() {
		return c.secret, nil
	}
	password, err := loadPassword(s.cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	secret, err := tokenSecret(s.cfg.Identity, password)
	if err == nil {
		c.file, c.secret = file, secret
	}
	return secret, err
}
