package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/auth"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/identity/identitytest"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const (
	method      = "com.example.method"
	registryDID = "did:web:registry.example.org"
	ownerDID    = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
)

// testCallers are the callers of a hold, at a time that does not pass by itself.
type testCallers struct {
	testing.TB
	*Callers
	id  identity.Identity
	now time.Time
}

func newCallers(t *testing.T) (h *testCallers, registry, owner *account) {
	t.Helper()
	h = &testCallers{TB: t, id: newIdentity(t), now: time.Now()}
	doc, err := h.id.Document()
	if err != nil {
		t.Fatal(err)
	}
	h.Callers, err = NewCallers(CallersConfig{
		Document: doc, Registries: []string{registryDID, h.id.DID}, Owners: []string{ownerDID}, Now: func() time.Time { return h.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, newAccount(h, registryDID), newAccount(h, ownerDID)
}

// call makes a call with a token.
func (h *testCallers) call(token string) (Caller, error) {
	c := &xrpc.Call{Request: httptest.NewRequest("POST", "/xrpc/"+method, nil), NSID: method}
	if token != "" {
		c.Request.Header.Set("Authorization", "Bearer "+token)
	}
	err := h.Authorize(c)
	caller, _ := c.Caller.(Caller)
	return caller, err
}

// want checks the status and name of the error of a call; status 200 is no error.
func (h *testCallers) want(token string, status int, name, message string) Caller {
	h.Helper()
	caller, err := h.call(token)
	var e *xrpc.Error
	switch {
	case status == 200 && err != nil:
		h.Errorf("got %v, want no error", err)
	case status != 200 && (!errors.As(err, &e) || e.Status != status || e.Name != name || !strings.Contains(e.Message, message)):
		h.Errorf("got %v, want %d %s %q", err, status, name, message)
	}
	return caller
}

// account is an account on another host.
type account struct {
	did  string
	key  atcrypto.PrivateKeyExportable
	host *identitytest.Host // of its DID document
}

func newAccount(h *testCallers, did string) *account {
	h.Helper()
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		h.Fatal(err)
	}
	a := &account{did: did, key: key}
	a.publish(h)
	return a
}

func (a *account) document(h *testCallers) identitytest.Answer {
	h.Helper()
	public, err := a.key.PublicKey()
	if err != nil {
		h.Fatal(err)
	}
	return identitytest.Answer{Status: 200, Body: fmt.Sprintf(`{"id":%q,"verificationMethod":[{"id":"%[1]s#atproto","type":"Multikey","controller":%[1]q,"publicKeyMultibase":%[2]q}]}`, a.did, public.Multibase())}
}

// publish sets the answers of the account's host; by default it serves the DID
// document.
func (a *account) publish(h *testCallers, answers ...identitytest.Answer) {
	h.Helper()
	if len(answers) == 0 {
		answers = append(answers, a.document(h))
	}
	a.host = identitytest.NewHost(answers...)
	h.issuers[a.did].source.Client.Transport = a.host
}

// sign returns a valid token with changed claims; those that are nil are removed.
func (a *account) sign(h *testCallers, changes map[string]any) string {
	h.Helper()
	header := map[string]any{"typ": "JWT", "alg": "ES256"}
	if _, ok := a.key.(*atcrypto.PrivateKeyK256); ok {
		header["alg"] = "ES256K"
	}
	claims := map[string]any{
		"iss": a.did, "aud": h.id.DID, "lxm": method, "jti": newTokenID(),
		"iat": h.now.Unix(), "exp": h.now.Add(time.Minute).Unix(),
	}
	for name, value := range changes {
		into := claims
		if name == "typ" || name == "alg" || name == "kid" {
			into = header
		}
		into[name] = value
	}
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	encode := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			h.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	token := encode(header) + "." + encode(claims)
	sig, err := a.key.HashAndSign([]byte(token))
	if err != nil {
		h.Fatal(err)
	}
	return token + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestValidServiceTokens(t *testing.T) {
	t.Parallel()
	h, registry, owner := newCallers(t)
	for name, tc := range map[string]struct {
		from  *account
		token string
	}{
		"registry":          {registry, registry.sign(h, nil)},
		"owner":             {owner, owner.sign(h, nil)},
		"audience fragment": {registry, registry.sign(h, map[string]any{"aud": h.id.DID + "#atproto_pds"})},
		"audience list":     {registry, registry.sign(h, map[string]any{"aud": []string{h.id.DID}})},
		"no jti":            {registry, registry.sign(h, map[string]any{"jti": nil})},
	} {
		caller := h.want(tc.token, 200, "", "")
		if caller.DID != tc.from.did || caller.Registry != (tc.from == registry) || caller.Token == "" {
			t.Errorf("%s: got %+v", name, caller)
		}
		h.want(tc.token, 401, "BadJwtReplay", "a new one for each call")
	}
	// Tokens of indigo, with both types of keys.
	lxm := syntax.NSID(method)
	for _, kind := range []string{"P-256", "K-256"} {
		if kind == "K-256" {
			key, err := atcrypto.GeneratePrivateKeyK256()
			if err != nil {
				t.Fatal(err)
			}
			registry.key = key
			h.now = h.now.Add(keyRefetch)
			registry.publish(h)
		}
		for _, aud := range []string{h.id.DID, h.id.DID + "#atproto_pds"} {
			token, err := auth.SignServiceAuth(registryDID, aud, time.Minute+time.Until(h.now), &lxm, registry.key)
			if err != nil {
				t.Fatal(err)
			}
			h.want(token, 200, "", "")
		}
	}
	// Our own.
	doc, err := json.Marshal(h.doc)
	if err != nil {
		t.Fatal(err)
	}
	h.issuers[h.id.DID].source.Client.Transport = identitytest.NewHost(identitytest.Answer{Status: 200, Body: string(doc)})
	token, err := Sign(h.id, h.id.DID, method, 0, h.now)
	if err != nil {
		t.Fatal(err)
	}
	if caller := h.want(token, 200, "", ""); caller.DID != h.id.DID {
		t.Errorf("got %+v", caller)
	}
}

func TestInvalidServiceTokens(t *testing.T) {
	t.Parallel()
	h, registry, owner := newCallers(t)
	claim := func(name string, value any) string { return registry.sign(h, map[string]any{name: value}) }
	for name, tc := range map[string]struct {
		token          string
		status         int
		error, message string
	}{
		"none":                {"", 401, "AuthMissing", ""},
		"two parts":           {"x.y", 401, "BadJwt", ""},
		"no JSON":             {"eA.eA.eA", 401, "BadJwt", ""},
		"too long":            {claim("x", strings.Repeat("x", maxServiceToken)), 401, "BadJwt", ""},
		"no iss":              {claim("iss", nil), 401, "BadJwt", ""},
		"no exp":              {claim("exp", nil), 401, "BadJwt", ""},
		"no aud":              {claim("aud", nil), 401, "BadJwt", ""},
		"two audiences":       {claim("aud", []string{h.id.DID, "did:web:x.example.com"}), 401, "BadJwt", ""},
		"expired":             {claim("exp", h.now.Unix()-1), 401, "JwtExpired", ""},
		"valid for a year":    {claim("exp", h.now.AddDate(1, 0, 0).Unix()), 401, "BadJwtExpiration", "5m0s"},
		"infinite":            {claim("exp", 1e300), 401, "JwtExpired", ""},
		"other audience":      {claim("aud", "did:web:x.example.com"), 401, "BadJwtAudience", "it must be " + h.id.DID},
		"unknown fragment":    {claim("aud", h.id.DID+"#atproto_labeler"), 401, "BadJwtAudience", ""},
		"other method":        {claim("lxm", "com.atproto.repo.applyWrites"), 401, "BadJwtLexiconMethod", "bad jwt lexicon method"},
		"no method":           {claim("lxm", nil), 401, "BadJwtLexiconMethod", "missing"},
		"session token":       {claim("typ", "at+jwt"), 401, "BadJwtType", ""},
		"alg none":            {claim("alg", "none"), 401, "BadJwtSignature", ""},
		"other curve":         {claim("alg", "ES256K"), 401, "BadJwtSignature", ""},
		"signed by another":   {owner.sign(h, map[string]any{"iss": registryDID}), 401, "BadJwtSignature", ""},
		"account not allowed": {claim("iss", "did:web:stranger.example.com"), 403, "Forbidden", "hold.registries or hold.owners"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.call(tc.token)
			var e *xrpc.Error
			if !errors.As(err, &e) || e.Status != tc.status || e.Name != tc.error && name != "infinite" || !strings.Contains(e.Message, tc.message) {
				t.Errorf("got %v, want %d %s %q", err, tc.status, tc.error, tc.message)
			}
		})
	}
}

func TestNoCallers(t *testing.T) {
	t.Parallel()
	h, registry, _ := newCallers(t)
	token := registry.sign(h, nil)
	h.issuers = nil
	h.want(token, 403, "Forbidden", "hold.registries or hold.owners")
	if _, err := NewCallers(CallersConfig{Owners: []string{"did:web:10.0.0.1"}}); err == nil || !strings.Contains(err.Error(), "did:web:10.0.0.1") {
		t.Errorf("an internal address: got %v", err)
	}
}

// The caller's DID document is fetched rarely, also for invalid tokens.
func TestKeyCache(t *testing.T) {
	t.Parallel()
	h, registry, forger := newCallers(t)
	requests := func(want int) {
		t.Helper()
		if got := len(registry.host.Requests); got != want {
			t.Errorf("got %d requests, want %d: %q", got, want, registry.host.Requests)
		}
	}
	old := *registry
	h.want(registry.sign(h, nil), 200, "", "")
	h.want(registry.sign(h, nil), 200, "", "")
	requests(1)

	// Forged tokens cause one request a minute.
	forged := func() {
		t.Helper()
		for range 5 {
			h.want(forger.sign(h, map[string]any{"iss": registryDID}), 401, "BadJwtSignature", "")
		}
	}
	forged()
	requests(1)
	h.now = h.now.Add(keyRefetch)
	forged()
	requests(2)

	// A new key is found, and the old one is no longer valid.
	registry.key = forger.key
	h.now = h.now.Add(keyRefetch)
	registry.publish(h)
	h.want(registry.sign(h, nil), 200, "", "")
	h.want(old.sign(h, nil), 401, "BadJwtSignature", "")
	requests(1)

	// After keyLife the document is fetched again, and after a failure not before
	// keyRetry.
	h.now = h.now.Add(keyLife)
	answer := func(status int, body string) identitytest.Answer {
		return identitytest.Answer{Status: status, Body: body}
	}
	registry.publish(h, answer(0, ""), answer(502, "<html>"), answer(200, `{"id":"did:web:x.example.com"}`), answer(200, `{"id":"`+registryDID+`"}`), registry.document(h))
	for i, want := range []identitytest.Answer{answer(503, "ServiceUnavailable"), answer(503, "ServiceUnavailable"), answer(401, "BadJwtIss"), answer(401, "BadJwtIss"), answer(200, "")} {
		h.want(registry.sign(h, nil), want.Status, want.Body, "")
		h.want(registry.sign(h, nil), want.Status, want.Body, "")
		requests(i + 1)
		h.now = h.now.Add(keyRetry)
	}
}

// A slow DID host delays only the calls that need its answer, and those only as
// long as their clients wait.
func TestSlowDIDHost(t *testing.T) {
	t.Parallel()
	h, registry, _ := newCallers(t)
	h.want(registry.sign(h, nil), 200, "", "")
	h.now = h.now.Add(keyRefetch)
	now := h.now
	slow := &slowHost{requested: make(chan struct{}), release: make(chan struct{})}
	from := h.issuers[registryDID]
	from.source.Client.Transport = slow
	waiting := make(chan error, 1)
	go func() {
		_, err := from.signingKey(t.Context(), now, keyRefetch)
		waiting <- err
	}()
	<-slow.requested
	h.want(registry.sign(h, nil), 200, "", "")
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := from.signingKey(ended, now, keyRefetch); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that disconnects: got %v", err)
	}
	close(slow.release)
	if err := <-waiting; err == nil || !strings.Contains(err.Error(), "slow answer") {
		t.Errorf("got %v before the host answered", err)
	}
}

// slowHost answers one request when it is released.
type slowHost struct{ requested, release chan struct{} }

func (s *slowHost) RoundTrip(r *http.Request) (*http.Response, error) {
	close(s.requested)
	select {
	case <-s.release:
		return nil, errors.New("slow answer")
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}
