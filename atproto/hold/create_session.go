package hold

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// hashWait is how long a login waits for others to be checked.
const hashWait = 10 * time.Second

// What a login takes, since anybody may send one and stop in the middle.
const (
	maxLogin     = 8 << 10 // bytes
	loginTimeout = 5 * time.Second
)

var errBadLogin = xrpc.NewError(http.StatusUnauthorized, "AuthenticationRequired", "Invalid identifier or password")

// mayLogIn says how much body a login may have.
func (s *Server) mayLogIn(c *xrpc.Call) error {
	if !s.login {
		return errNoLogins
	}
	c.InputLimit = maxLogin
	c.LimitBodyTime(loginTimeout)
	return nil
}

// createSession is com.atproto.server.createSession.
func (s *Server) createSession(c *xrpc.Call) (any, error) {
	stored, err := loadPassword(s.passwordFile)
	if errors.Is(err, errNoPassword) {
		return nil, xrpc.NewError(http.StatusUnauthorized, "AuthenticationRequired", errNoPassword.Error())
	}
	if err != nil {
		return nil, err
	}
	right := s.right.is(stored, c.Field("password"))
	if !right {
		if right, err = s.checkPassword(c, stored); err != nil {
			return nil, err
		}
	}
	if !right || !s.id.Matches(c.Field("identifier")) {
		return nil, errBadLogin
	}
	s.right.remember(stored, c.Field("password"))
	session, id, err := s.sessions.begin(s.now())
	if err != nil {
		return nil, err
	}
	return s.sessionTokens(session, id)
}

// checkPassword hashes the password that was sent, within the limits. It does so
// for a wrong name, too: both take the same time.
func (s *Server) checkPassword(c *xrpc.Call, stored passwordHash) (right bool, err error) {
	ctx, cancel := context.WithTimeout(c.Context(), hashWait)
	defer cancel()
	key := loginKey{clientaddr.Of(c.Request), s.id.Matches(c.Field("identifier"))}
	if wait, ok := s.logins.take(key, s.now()); !ok {
		if !key.ours {
			return false, xrpc.TooManyRequests(wait)
		}
		leave, ok := s.slow.enter(ctx, key.client)
		if !ok {
			return false, xrpc.TooManyRequests(hashWait)
		}
		defer leave()
	}
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return false, xrpc.TooManyRequests(hashWait)
	}
	return stored.matches(c.Field("password")), nil
}
