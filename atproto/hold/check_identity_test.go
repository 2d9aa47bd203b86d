package hold

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity/identitytest"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// document returns the hold's DID document with a replacement.
func (h *testHold) document(old, new string) identitytest.Answer {
	h.Helper()
	body, err := json.Marshal(h.server.doc)
	if err != nil || !strings.Contains(string(body), old) {
		h.Fatalf("%q is not in %s (%v)", old, body, err)
	}
	return identitytest.Answer{Status: 200, Body: strings.ReplaceAll(string(body), old, new)}
}

func (h *testHold) publish(answers ...identitytest.Answer) *identitytest.Host {
	p := identitytest.NewHost(answers...)
	h.server.own.Client.Transport = p
	return p
}

const otherKey = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"

func TestCheckIdentity(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	ours := h.server.doc.SigningKey()
	for _, tc := range []struct {
		name   string
		answer identitytest.Answer
		error  string
		refuse bool
	}{
		{"ours", h.document(ours, ours), "", false},
		{"another key", h.document(ours, otherKey), otherKey, true},
		{"another key again", h.document(ours, otherKey), ours, true},
		{"no connection after another key", identitytest.Answer{}, "no route", true},
		{"ours again", h.document(ours, ours), "", false},
		{"key with a relative ID", h.document(h.DID+"#atproto", "#atproto"), "", false},
		{"no key", h.document(`"type":"Multikey"`, `"type":"Multikey","id":"#other"`), `shows ""`, true},
		{"ours after no key", h.document(ours, ours), "", false},
		{"no connection", identitytest.Answer{}, "no route", false},
		{"error of a gateway", identitytest.Answer{Status: 502, Body: "<html>"}, "answered", false},
		{"invalid document", identitytest.Answer{Status: 200, Body: "<html>"}, "not a DID document", false},
		{"too long", identitytest.Answer{Status: 200, Body: `{"id":"` + strings.Repeat("x", 64<<10)}, "not a DID document", false},
		{"other DID", h.document(h.DID, "did:web:other.example.com"), "did:web:other.example.com", false},
		{"redirect", identitytest.Answer{Status: 302, Body: ""}, "answered", false},
	} {
		host := h.publish(tc.answer)
		err := h.server.CheckIdentity(t.Context())
		if err == nil && tc.error != "" || err != nil && (tc.error == "" || !strings.Contains(err.Error(), tc.error)) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if want := "0 https://" + testHost + "/.well-known/did.json"; len(host.Requests) != 1 || host.Requests[0] != want {
			t.Errorf("%s: requests %q", tc.name, host.Requests)
		}
		_, err = h.repo.Apply(t.Context(), nil, nil)
		if refused := errors.Is(err, repo.ErrSuspended); refused != tc.refuse || err != nil && !refused {
			t.Errorf("%s: write: %v", tc.name, err)
		}
		if tc.refuse {
			h.Want("POST", apply, writes(`create k {}`), 503, "ServiceUnavailable", "repo is suspended")
			h.Want("GET", "_health", "", 503, "Service Unavailable", "")
			h.Want("GET", "com.atproto.sync.getLatestCommit?did=%", "", 200, "", "")
		} else {
			h.Want("GET", "_health", "", 200, "", "")
		}
	}
	if n := strings.Count(h.logged(), "writes are suspended"); n != 2 {
		t.Errorf("logged %d times, want 2", n)
	}
}

// The document is fetched until it has the hold's key: soon if there is no
// response, each minute if it has another key.
func TestWatchIdentity(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	ours := h.server.doc.SigningKey()
	other, own := h.document(ours, otherKey), h.document(ours, ours)
	synctest.Test(t, func(t *testing.T) {
		p := h.publish(identitytest.Answer{}, identitytest.Answer{}, other, other, own)
		h.server.watchIdentity(t.Context())
		at := ""
		for _, line := range p.Requests {
			at += strings.Fields(line)[0] + " "
		}
		if at != "10 30 70 130 190 " {
			t.Errorf("requests at %s", at)
		}
		if err := h.repo.Suspended(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(h.logged(), "can't verify the hold's DID document"); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		p = h.publish(identitytest.Answer{})
		h.server.watchIdentity(ctx)
		if len(p.Requests) < 28 || len(p.Requests) > 40 {
			t.Errorf("%d requests a day", len(p.Requests))
		}
	})
}

// The own hostname is not fetched from an internal address.
func TestIdentityGuard(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	internal := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("an internal address was fetched") }))
	defer internal.Close()
	var err error
	if h.server.own.URL, err = url.Parse(internal.URL); err != nil { // as if the hostname resolved to it
		t.Fatal(err)
	}
	if err := h.server.CheckIdentity(t.Context()); err == nil || !strings.Contains(err.Error(), "is not a public address") {
		t.Errorf("got %v", err)
	}
}

func TestLocalhostIsNotResolved(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.Hostname = "localhost:5000" })
	if h.server.own != nil {
		t.Error("the document of localhost is fetched")
	}
}
