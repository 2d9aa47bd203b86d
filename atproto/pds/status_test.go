package pds

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"reflect"
	"testing"
	"time"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if s := r.Status(); s.DID != "" || s.Host != "" || s.Session.LoggedIn || s.Service != r.server.URL {
		t.Errorf("before the first call: %+v", s)
	}
	until := r.now.Add(90 * 24 * time.Hour)
	r.server.on(createSession, func(w http.ResponseWriter, _ *http.Request) {
		part := base64.RawURLEncoding.EncodeToString
		token := part([]byte(`{"alg":"HS256"}`)) + "." + part(fmt.Appendf(nil, `{"exp":%d}`, until.Unix())) + "." + part([]byte("signature"))
		reply(w, 200, map[string]any{"did": alice, "accessJwt": "access-1", "refreshJwt": token})
	})
	if err := r.apply(1); err != nil {
		t.Fatal(err)
	}
	s := r.Status()
	if s.DID != alice || s.Handle != "alice.test" || s.Host != r.server.URL || !s.Session.LoggedIn || !s.Session.Until.Equal(until) {
		t.Errorf("after a write: %+v", s)
	}
	r.now = r.now.Add(time.Hour)
	r.reopen()
	s = r.Status()
	if want := []Logins{{5 * time.Minute, 0, 10}, {24 * time.Hour, 1, 100}}; s.DID != alice || s.Handle != "" || !reflect.DeepEqual(s.Session.Logins, want) {
		t.Errorf("after a restart: %+v", s)
	}
}

// A read-only account leaves the file alone, for which it may lack the folder.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	readOnly := func() {
		t.Helper()
		r.cfg.ReadOnly = true
		r.reopen()
		if err := r.Resolve(t.Context()); err != nil || r.Status().DID != alice {
			t.Errorf("%+v, %v", r.Status(), err)
		}
		if err := r.apply(1); !errors.Is(err, errReadOnly) {
			t.Errorf("a write: %v", err)
		}
		if _, err := r.CheckSession(t.Context()); !errors.Is(err, errReadOnly) {
			t.Errorf("a read with the session: %v", err)
		}
		r.cfg.ReadOnly = false
		r.reopen()
	}
	readOnly()
	if _, err := os.Stat(r.cfg.File); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is written: %v", err)
	}
	if err := r.apply(1); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(r.cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	readOnly()
	if after, err := os.ReadFile(r.cfg.File); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file is changed: %v", err)
	}
	if n := r.server.called(createSession) + r.server.called(refreshSession); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestStatusAfterRefusedPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("wrong")
	if err := r.apply(1); err == nil {
		t.Fatal("no error")
	}
	r.reopen()
	if s := r.Status().Session; s.LoggedIn || s.Refused != 1 || s.Logins[0].Used != 1 || !s.Until.IsZero() {
		t.Errorf("got %+v", s)
	}
}

func TestCheckSession(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"active":true}`: "", `{}`: "", `{"active":false}`: "inactive", `{"active":false,"status":"takendown"}`: "takendown",
	} {
		r := newRig(t)
		r.server.on("com.atproto.server.getSession", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(answer))
		})
		for range 2 {
			if got, err := r.CheckSession(t.Context()); got != want || err != nil {
				t.Errorf("%s: got %q, %v", answer, got, err)
			}
			r.reopen()
		}
		if n := r.server.called(createSession); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
	}
	r := newRig(t)
	r.write("wrong")
	if _, err := r.CheckSession(t.Context()); err == nil {
		t.Error("a wrong password is no error")
	}
}
