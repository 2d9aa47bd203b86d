package pds

import (
	"errors"
	"net/http"
	"net/url"
	"sync"
	"testing"
)

func TestServiceAuth(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const method, audience, token = "com.atproto.server.getServiceAuth", "did:web:hold.example.com#atcr_hold", "eyJh.eyJp.c2ln"
	var mu sync.Mutex
	var asked url.Values
	answer := token
	r.server.on(method, func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = q.URL.Query()
		if q.Method != http.MethodGet || q.Header.Get("Authorization") != "Bearer access-1" {
			refuse(w, 401, "AuthMissing", "no session")
			return
		}
		reply(w, 200, map[string]string{"token": answer})
	})
	for range 2 {
		got, err := r.ServiceAuth(t.Context(), audience, "io.atcr.hold.notifyManifest")
		mu.Lock()
		if err != nil || got != token || asked.Get("aud") != audience || asked.Get("lxm") != "io.atcr.hold.notifyManifest" {
			t.Errorf("got %q, %v, asked for %v", got, err, asked)
		}
		mu.Unlock()
	}
	if n := r.server.called(method); n != 2 {
		t.Errorf("%d tokens were issued for 2 calls", n)
	}
	for _, invalid := range []string{"", "token", "a.b.c\r\nX: y"} {
		mu.Lock()
		answer = invalid
		mu.Unlock()
		_, err := r.ServiceAuth(t.Context(), audience, "m")
		var failed *Error
		if !errors.As(err, &failed) || failed.Outcome != Unknown {
			t.Errorf("token %q: got %v", invalid, err)
		}
	}
	r.server.on(method, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 400, "InvalidRequest", "aud must be a DID") })
	_, err := r.ServiceAuth(t.Context(), audience, "m")
	var failed *Error
	if !errors.As(err, &failed) || failed.Outcome != Refused {
		t.Errorf("got %v", err)
	}
}
