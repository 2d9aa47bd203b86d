package hold

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// hashWait is how long a login waits for others to be checked.
const hashWait = 10 * time.Second

// What a login takes, since anybody may send one and stop in the middle.
const (
	maxLogin     = 8 << 10 // bytes
	loginTimeout = 5 * time.Second
)

var errBadLogin = &Error{http.StatusUnauthorized, "AuthenticationRequired", "Invalid identifier or password"}

// mayLogIn says how much body a login may have.
func (s *Server) mayLogIn(c *call) error {
	if !s.login {
		return errNoLogins
	}
	c.most = maxLogin
	s.expectBody(c.writer, loginTimeout)
	return nil
}

// createSession is com.atproto.server.createSession.
func (s *Server) createSession(c *call) (any, error) {
	stored, err := loadPassword(s.passwordFile)
	if errors.Is(err, errNoPassword) {
		return nil, &Error{http.StatusUnauthorized, "AuthenticationRequired", errNoPassword.Error()}
	}
	if err != nil {
		return nil, err
	}
	right := s.right.is(stored, c.text("password"))
	if !right {
		if right, err = s.checkPassword(c, stored); err != nil {
			return nil, err
		}
	}
	if !right || !s.id.Matches(c.text("identifier")) {
		return nil, errBadLogin
	}
	s.right.remember(stored, c.text("password"))
	session, id, err := s.sessions.begin(s.now())
	if err != nil {
		return nil, err
	}
	return s.sessionTokens(session, id)
}

// checkPassword hashes the password that was sent, within the limits. It does so
// for a wrong name, too: both take the same time.
func (s *Server) checkPassword(c *call, stored passwordHash) (right bool, err error) {
	ctx, cancel := context.WithTimeout(c.Context(), hashWait)
	defer cancel()
	key := loginKey{clientaddr.Of(c.Request), s.id.Matches(c.text("identifier"))}
	if wait, ok := s.logins.take(key, s.now()); !ok {
		if !key.ours {
			return false, s.tooMany(c, wait)
		}
		leave, ok := s.slow.enter(ctx, key.client)
		if !ok {
			return false, s.tooMany(c, hashWait)
		}
		defer leave()
	}
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return false, s.tooMany(c, hashWait)
	}
	return stored.matches(c.text("password")), nil
}

func (s *Server) tooMany(c *call, wait time.Duration) error {
	c.reply.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	return &Error{http.StatusTooManyRequests, "RateLimitExceeded", "Rate Limit Exceeded"}
}
