package hold

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"
)

// hashWait is how long a login waits for others to be checked.
const hashWait = 10 * time.Second

// What a login takes, since anybody may send one and stop in the middle.
const (
	maxLogin     = 8 << 10 // bytes
	loginTimeout = 5 * time.Second
)

var errBadLogin = &Error{http.StatusUnauthorized, "AuthenticationRequired", "Invalid identifier or password"}

// mayLogIn lets a caller pass who has not tried too often, before the body is read.
func (s *Server) mayLogIn(c *call) error {
	if !s.login {
		return errNoLogins
	}
	if wait, ok := s.logins.take(c.Request, s.now()); !ok {
		return s.tooMany(c, wait)
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
	ctx, cancel := context.WithTimeout(c.Context(), hashWait)
	defer cancel()
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return nil, s.tooMany(c, hashWait)
	}
	// The password is checked even for a wrong name: both take the same time.
	if !stored.matches(c.text("password")) || !s.id.is(c.text("identifier")) {
		return nil, errBadLogin
	}
	session, id, err := s.sessions.begin(s.now())
	if err != nil {
		return nil, err
	}
	return s.sessionTokens(session, id)
}

func (s *Server) tooMany(c *call, wait time.Duration) error {
	c.reply.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	return &Error{http.StatusTooManyRequests, "RateLimitExceeded", "Rate Limit Exceeded"}
}
