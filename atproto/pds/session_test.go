package pds

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	createSession  = "com.atproto.server.createSession"
	refreshSession = "com.atproto.server.refreshSession"
)

// A crash loop goes on with the session that it has.
func TestCrashLoopLogsInOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 50 {
		if err := r.apply(1); err != nil {
			t.Fatal(err)
		}
		r.reopen()
	}
	if n := r.server.called(createSession); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

// A crash loop without a session, because the service ends each at once, stays
// within the limits.
func TestLoginLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for step := range 24 * 3 {
		r.now = r.now.Add(20 * time.Minute)
		before := r.server.called(createSession)
		for range 12 {
			r.server.revoke("access-")
			r.server.revoke("refresh-")
			r.apply(1)
			r.reopen()
		}
		if n := r.server.called(createSession) - before; n > 10 {
			t.Fatalf("%d logins at once, in step %d", n, step)
		}
	}
	if n := r.server.called(createSession); n != 100 {
		t.Errorf("%d logins in a day, want 100", n)
	}
	var e *Error
	r.server.revoke("access-")
	r.server.revoke("refresh-")
	if err := r.apply(1); !errors.As(err, &e) || e.Outcome != Suspended || !e.Until.After(r.now) {
		t.Errorf("got %v, want an error that says when the next login may be", err)
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("wrong")
	err := r.apply(1)
	var e *Error
	if !errors.As(err, &e) || e.Outcome != Suspended || !errors.Is(err, ErrPassword) || e.Reason() != reasonPassword || !strings.Contains(err.Error(), r.cfg.PasswordFile) {
		t.Fatalf("got %v", err)
	}
	for range 100 { // over 100 hours, with restarts
		r.now = r.now.Add(time.Hour)
		for range 3 {
			r.apply(1)
			r.reopen()
		}
	}
	if n := r.server.called(createSession); n < 16 || n > 30 {
		t.Errorf("%d logins with a wrong password in 100 hours", n)
	}
	r.write(password + " ")
	if err := r.apply(1); err != nil {
		t.Errorf("with another password: %v", err)
	}
}

// The reason says that a password file is missing or empty.
func TestNoPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, tc := range []struct {
		change       func()
		says, reason string
	}{
		{func() { r.write(" ") }, r.cfg.PasswordFile + " is empty", "its password file is empty"},
		{func() { os.Remove(r.cfg.PasswordFile) }, "open " + r.cfg.PasswordFile, "its password file cannot be read"},
	} {
		tc.change()
		err := r.apply(1)
		var e *Error
		if !errors.As(err, &e) || e.Outcome != Suspended || e.Reason() != tc.reason || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("got %v, want %q", err, tc.says)
		}
	}
	if n := r.server.called(createSession); n > 0 {
		t.Errorf("%d logins without a password", n)
	}
}

func TestExpiredTokens(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401} {
		r := newRig(t)
		if err := r.apply(1); err != nil {
			t.Fatal(err)
		}
		r.server.revoke("access-")
		first := true
		r.server.on(applyWrites, func(w http.ResponseWriter, q *http.Request) {
			if first {
				first = false
				refuse(w, status, "ExpiredToken", "Token has expired")
				return
			}
			r.server.mu.Lock()
			defer r.server.mu.Unlock()
			r.server.apply(w, q)
		})
		if err := r.apply(1); err != nil {
			t.Errorf("status %d: %v", status, err)
		}
		if l, f := r.server.called(createSession), r.server.called(refreshSession); l != 1 || f != 1 {
			t.Errorf("status %d: %d logins and %d refreshes, want 1 and 1", status, l, f)
		}
		r.server.on(applyWrites, nil)
		r.server.revoke("access-")
		r.server.revoke("refresh-")
		if err := r.apply(1); err != nil {
			t.Errorf("status %d, after the session has ended: %v", status, err)
		}
		if l := r.server.called(createSession); l != 2 {
			t.Errorf("status %d: %d logins, want 2", status, l)
		}
	}
}

// A service that does not answer a refresh is not asked for another login.
func TestRefreshFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.apply(1); err != nil {
		t.Fatal(err)
	}
	r.server.revoke("access-")
	r.server.on(refreshSession, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) })
	var e *Error
	if err := r.apply(1); !errors.As(err, &e) || e.Outcome != Unknown {
		t.Errorf("got %v", err)
	}
	if n := r.server.called(createSession); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

// Another account than the identifier's is not written to.
func TestSessionOfAnotherAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.on(createSession, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]string{"did": "did:plc:other", "accessJwt": "access-1", "refreshJwt": "refresh-1"})
	})
	var e *Error
	if err := r.apply(1); !errors.As(err, &e) || e.Outcome != Suspended {
		t.Errorf("got %v", err)
	}
	if n := r.server.called(applyWrites); n != 0 {
		t.Errorf("%d writes", n)
	}
}
