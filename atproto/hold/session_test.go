package hold

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/api/agnostic"
	"github.com/bluesky-social/indigo/atproto/atclient"
	"github.com/bluesky-social/indigo/atproto/auth"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

const loginMethod = "com.atproto.server.createSession"

func (h *testHold) login(identifier, password string) (int, map[string]any) {
	h.Helper()
	return h.Call("POST", loginMethod, `{"identifier":"`+identifier+`","password":"`+password+`"}`)
}

func TestLogin(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	for _, identifier := range []string{testHost, h.DID, strings.ToUpper(testHost)} {
		if status, body := h.login(identifier, h.password); status != 200 || body["did"] != h.DID || body["active"] != true {
			t.Errorf("%s: got %d %v", identifier, status, body)
		}
	}
	const refused = "Invalid identifier or password"
	h.Want("POST", loginMethod, `{"identifier":"%","password":"wrong"}`, 401, "AuthenticationRequired", refused)
	h.Want("POST", loginMethod, `{"identifier":"%","password":""}`, 401, "AuthenticationRequired", refused)
	h.Want("POST", loginMethod, `{"identifier":"other.example.com","password":"`+h.password+`"}`, 401, "AuthenticationRequired", refused)
	h.Want("POST", loginMethod, `{"identifier":"%"}`, 400, "InvalidRequest", `missing required key "password"`)
	if strings.Contains(h.logged(), h.password) {
		t.Error("the password is in the log")
	}
}

// indigo's client logs in, and refreshes an expired session.
func TestIndigoClient(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	refreshed := 0
	client, err := atclient.LoginWithPasswordHost(t.Context(), h.URL, testHost, h.password, "",
		func(context.Context, atclient.PasswordSessionData) { refreshed++ })
	if err != nil {
		t.Fatal(err)
	}
	write := func() error {
		_, err := agnostic.RepoCreateRecord(t.Context(), client, &agnostic.RepoCreateRecord_Input{
			Repo: h.DID, Collection: "com.example.thing", Record: map[string]any{"$type": "com.example.thing", "n": 1},
		})
		return err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	h.advance(2*time.Hour + time.Minute)
	if err := write(); err != nil || refreshed != 1 {
		t.Errorf("after expiry: %v, %d refreshes", err, refreshed)
	}
}

func TestSessionMethods(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	_, session := h.login(testHost, h.password)
	h.Token = session["accessJwt"].(string)
	if got := h.Want("GET", "com.atproto.server.getSession", "", 200, "", ""); got["handle"] != testHost || got["accessJwt"] != nil || got["didDoc"] == nil {
		t.Errorf("getSession: got %v", got)
	}
	h.Token = session["refreshJwt"].(string)
	if got := h.Want("POST", "com.atproto.server.refreshSession", "", 200, "", ""); got["handle"] != testHost || got["accessJwt"] == nil {
		t.Errorf("refreshSession: got %v", got)
	}
	if resp, body := h.Do(h.Request("POST", "/xrpc/com.atproto.server.deleteSession", "")); resp.StatusCode != 200 || len(body) != 0 {
		t.Errorf("deleteSession: got %d %q", resp.StatusCode, body)
	}
	h.Token = session["accessJwt"].(string)
	h.Want("GET", "com.atproto.server.getSession", "", 400, "ExpiredToken", "Token has been revoked")
}

// indigo's validator accepts the tokens with the key in did.json.
func TestServiceAuth(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	dir := identity.NewMockDirectory()
	dir.Insert(identity.Identity{
		DID: syntax.DID(h.DID), Handle: testHost,
		Keys: map[string]identity.VerificationMethod{"atproto": {Type: "Multikey", PublicKeyMultibase: h.publicKey().Multibase()}},
	})
	const aud, lxm = "did:web:api.example.com", syntax.NSID("com.example.method")
	token := func(query string) string {
		t.Helper()
		text, _ := h.Want("GET", "com.atproto.server.getServiceAuth?aud="+aud+query, "", 200, "", "")["token"].(string)
		return text
	}
	validator := auth.ServiceAuthValidator{Audience: aud, Dir: dir}
	check := func(token string, method *syntax.NSID, good bool) {
		t.Helper()
		did, err := validator.Validate(t.Context(), token, method)
		if good != (err == nil) || good && did.String() != h.DID {
			t.Errorf("got %s, %v, want good %t", did, err, good)
		}
	}
	bound := lxm
	other := syntax.NSID("com.example.other")
	in := func(d time.Duration) string { return fmt.Sprint("&exp=", h.clock().Add(d).Unix()) }
	check(token("&lxm="+lxm.String()), &bound, true)
	check(token("&lxm="+lxm.String()), &other, false)
	check(token("&lxm="+lxm.String()+in(50*time.Minute)), &bound, true)
	check(token(""), &bound, false)
	check(token(in(30*time.Second)), nil, true)
	if a, b := token(""), token(""); a == b {
		t.Error("two tokens are the same: they have one jti")
	}
	validator.Audience = "did:web:other.example.com"
	check(token("&lxm="+lxm.String()), &bound, false)

	method := "com.atproto.server.getServiceAuth?aud=" + aud
	h.Want("GET", method+in(-time.Minute), "", 400, "BadExpiration", "expiration is in past")
	h.Want("GET", method+"&exp=-9223372036854775808", "", 400, "BadExpiration", "expiration is in past")
	h.Want("GET", method+"&exp=9223372036854775807&lxm=a.b.c", "", 400, "BadExpiration", "more than an hour")
	h.Want("GET", method+in(2*time.Minute), "", 400, "BadExpiration", "more than a minute")
	h.Want("GET", method+"&lxm=a.b.c"+in(61*time.Minute), "", 400, "BadExpiration", "more than an hour")
	h.Want("GET", method+"&lxm=com.atproto.server.getSession", "", 400, "InvalidRequest", "protected method: com.atproto.server.getSession")
	h.Want("GET", method+"&lxm=x", "", 400, "InvalidRequest", "at $.lxm")
	for aud, want := range map[string]int{
		"x": 400, "did:key:zabc": 400, "did:web:a.example.com": 200, "did:web:a.example.com#": 400, "did:web:a.example.com#a#b": 400,
		"did:web:a.example.com#service": 200, "did:plc:ewvi7nxzyoun6zhxrhs64oiz": 200,
	} {
		resp, body := h.Do(h.Request("GET", "/xrpc/com.atproto.server.getServiceAuth?aud="+url.QueryEscape(aud), ""))
		if resp.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", aud, resp.StatusCode, body, want)
		}
	}
	h.Token = ""
	h.Want("GET", method, "", 401, "AuthMissing", "")
}
