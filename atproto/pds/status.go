package pds

import (
	"cmp"
	"context"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidings-dev/tidings/atproto/guard"
)

// Status is what an operator wants to know of the account.
type Status struct {
	DID     string // "": not known yet
	Handle  string // that the DID document names; "" before Resolve
	Service string // URL
	Host    string // URL of the repo's host; "" before Resolve
	Session SessionStatus
	Budget  BudgetStatus
}

// SessionStatus is the state of the session and of the logins.
type SessionStatus struct {
	LoggedIn bool      // there is a session, which the service may have ended
	Until    time.Time // when it ends, unless it is used before; zero: not known
	Logins   []Logins  // the shortest window first
	Refused  int       // how often the service has refused the password, as far as the file has not changed since
}

// Logins are the logins of a window that ends now.
type Logins struct {
	Window     time.Duration
	Used, Most int
}

// Status returns what is known without a call.
func (a *Account) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{DID: cmp.Or(a.did, a.saved.DID), Handle: a.handle, Service: a.service.String(), Session: a.sessionStatus(), Budget: a.budget()}
	if a.host != nil {
		s.Host = a.host.String()
	}
	if current := a.saved.Session; s.DID == "" && current != nil {
		s.DID = current.DID
	}
	return s
}

// sessionStatus is the session's part of the status. The caller must hold mu.
func (a *Account) sessionStatus() SessionStatus {
	var s SessionStatus
	if current := a.saved.Session; current != nil {
		s.LoggedIn, s.Until = true, expiry(current.Refresh)
	}
	if r := a.saved.Refused; r != nil {
		s.Refused = r.Times
	}
	for _, w := range loginLimits {
		s.Logins = append(s.Logins, Logins{w.length, len(after(a.saved.Logins, a.now().Add(-w.length))), w.most})
	}
	return s
}

// expiry is when a token ends, zero if it does not say. Only its issuer can verify
// it.
func expiry(token string) time.Time {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil || claims.ExpiresAt == nil {
		return time.Time{}
	}
	return claims.ExpiresAt.Time
}

// CheckSession makes a call with the session, and creates one if there is none or
// the service has ended it. It returns why the account is not active at the
// service, such as "deactivated", or "" if it is.
func (a *Account) CheckSession(ctx context.Context) (inactive string, err error) {
	if err := a.Resolve(ctx); err != nil {
		return "", err
	}
	out := struct {
		Active bool   `json:"active"`
		Status string `json:"status"`
	}{Active: true} // older PDSs leave it out
	if _, err := a.authorized(ctx, request{method: "com.atproto.server.getSession"}, &out); err != nil || out.Active {
		return "", err
	}
	if out.Status == "" {
		return "inactive", nil
	}
	return guard.Printable(out.Status, 64), nil
}
