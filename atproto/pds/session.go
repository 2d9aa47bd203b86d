package pds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/internal/private"
)

// Logins are limited by the service: the reference PDS allows 30 in 5 minutes and
// 300 a day, for each identifier and address. Fewer are used, since the operator
// may log in as well.
var loginLimits = []window{{5 * time.Minute, 10}, {24 * time.Hour, 100}}

// A window is a limit of so many in so long.
type window struct {
	length time.Duration
	most   int
}

// After a refused password the next login is tried after firstRetry, then twice
// that, up to lastRetry, unless the password file changes.
const (
	firstRetry = time.Minute
	lastRetry  = 6 * time.Hour
)

// refusedKey tells which password file was refused, not what is in it.
type refusedKey struct {
	Modified time.Time `json:"modified"`
	Size     int64     `json:"size"`
	Times    int       `json:"times"`
	Last     time.Time `json:"last"`
}

// ErrPassword is the cause of a login that the service refused.
var ErrPassword = errors.New("the service refused the password")

// authorized makes a call with an access token. Tokens are refreshed once the
// service says that they expired, and after that the password is used. The call
// is repeated only where the service refused the token, so it was not applied.
func (a *Account) authorized(ctx context.Context, r request, out any) (http.Header, error) {
	token, err := a.token(ctx, "")
	if err != nil {
		return nil, err
	}
	r.token = token
	header, err := a.do(ctx, r, out)
	var e *Error
	if !errors.As(err, &e) || !e.expired() {
		return header, err
	}
	if r.token, err = a.token(ctx, token); err != nil {
		return header, err
	}
	return a.do(ctx, r, out)
}

// token returns an access token other than expired. Concurrent callers wait for
// one refresh.
func (a *Account) token(ctx context.Context, expired string) (string, error) {
	if a.cfg.ReadOnly {
		return "", notSent("com.atproto.server.refreshSession", errReadOnly)
	}
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	a.mu.Lock()
	current := a.saved.Session
	if current != nil && current.DID != a.did {
		current = nil // the handle has changed hands
	}
	a.mu.Unlock()
	if current != nil && current.Access != expired {
		return current.Access, nil
	}
	if current != nil {
		token, err := a.refresh(ctx, current)
		var e *Error
		if err == nil || !errors.As(err, &e) || e.Outcome != Suspended {
			return token, err
		}
		a.log.Info("the session has ended; logging in", "service", a.service.Host, "error", err)
	}
	return a.login(ctx)
}

func (a *Account) refresh(ctx context.Context, s *session) (string, error) {
	var got session
	_, err := a.do(ctx, request{method: "com.atproto.server.refreshSession", post: true, token: s.Refresh}, &got)
	if err != nil {
		return "", err
	}
	return a.begin("com.atproto.server.refreshSession", got)
}

// login creates a session with the password, within the limits.
func (a *Account) login(ctx context.Context) (string, error) {
	const method = "com.atproto.server.createSession"
	if err := a.Resolve(ctx); err != nil {
		return "", err
	}
	password, file, err := a.password()
	if err != nil {
		reason := reasonNoPassword
		if errors.Is(err, private.ErrEmpty) {
			reason = reasonEmptyPassword
		}
		return "", &Error{Method: method, Outcome: Suspended, Err: err, reason: reason}
	}
	if err := a.countLogin(file); err != nil {
		return "", err
	}
	var got session
	_, err = a.do(ctx, request{method: method, post: true, secret: password, input: map[string]string{
		"identifier": a.cfg.Identifier, "password": password,
	}}, &got)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusUnauthorized {
		err = &Error{Method: method, Status: e.Status, Name: e.Name, Message: e.Message, Outcome: Suspended, reason: reasonPassword,
			Err: fmt.Errorf("%w in %s: create an app password at the service and write it there", ErrPassword, a.cfg.PasswordFile)}
		return "", errors.Join(err, a.noteRefused(file))
	}
	if err != nil {
		return "", err
	}
	return a.begin(method, got)
}

// password reads the password file.
func (a *Account) password() (string, os.FileInfo, error) {
	content, err := private.ReadFile(a.cfg.PasswordFile)
	if err != nil {
		return "", nil, fmt.Errorf("read password: %w", err)
	}
	file, err := os.Stat(a.cfg.PasswordFile)
	if err != nil {
		return "", nil, fmt.Errorf("read password: %w", err)
	}
	return strings.TrimSpace(string(content)), file, nil
}

// countLogin notes a login durably before it is tried, or says when the next one
// may be.
func (a *Account) countLogin(file os.FileInfo) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	limited := func(until time.Time, reason, why string) error {
		return &Error{Method: "com.atproto.server.createSession", Outcome: Suspended, Until: until, reason: reason,
			Err: fmt.Errorf("%s; the next login is at %s", why, until.UTC().Format(time.RFC3339))}
	}
	if r := a.saved.Refused; r != nil && r.Modified.Equal(file.ModTime()) && r.Size == file.Size() {
		if next := r.Last.Add(min(firstRetry<<min(r.Times-1, 20), lastRetry)); now.Before(next) {
			return limited(next, reasonPassword, fmt.Sprintf("%v in %s (logins: %d)", ErrPassword, a.cfg.PasswordFile, r.Times))
		}
	}
	day := loginLimits[len(loginLimits)-1].length
	a.saved.Logins = after(a.saved.Logins, now.Add(-day))
	for _, w := range loginLimits {
		recent := after(a.saved.Logins, now.Add(-w.length))
		if len(recent) >= w.most {
			return limited(recent[len(recent)-w.most].Add(w.length), reasonLogins, fmt.Sprintf("%d logins in %s", len(recent), w.length))
		}
	}
	a.saved.Logins = append(a.saved.Logins, now)
	return a.save()
}

// after returns the times after t. A clock that was set back leaves times in the
// future, which are dropped as well.
func after(times []time.Time, t time.Time) []time.Time {
	for len(times) > 0 && !times[0].After(t) {
		times = times[1:]
	}
	return times
}

func (a *Account) noteRefused(file os.FileInfo) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.saved.Refused
	if r == nil || !r.Modified.Equal(file.ModTime()) || r.Size != file.Size() {
		r = &refusedKey{Modified: file.ModTime(), Size: file.Size()}
	}
	r.Times++
	r.Last = a.now()
	a.saved.Refused, a.saved.Session = r, nil
	return a.save()
}

// begin keeps a new session before it is used: the refresh token of the last one
// is good for a short time only.
func (a *Account) begin(method string, s session) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case s.Access == "" || s.Refresh == "":
		return "", &Error{Method: method, Status: http.StatusOK, Outcome: Unknown, Err: errors.New("the answer has no tokens")}
	case s.DID != a.did:
		return "", &Error{Method: method, Status: http.StatusOK, Outcome: Suspended, reason: reasonIdentity,
			Err: fmt.Errorf("the session is of %s, but %s is %s", guard.Printable(s.DID, 100), a.cfg.Identifier, a.did)}
	}
	a.saved.Session, a.saved.Refused = &s, nil
	return s.Access, a.save()
}
