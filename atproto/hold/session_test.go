package hold

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

func TestPasswordFileHoldsAHash(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	content, err := os.ReadFile(h.server.passwordFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), h.password) || !strings.HasPrefix(string(content), "$argon2id$v=19$m=7168,t=5,p=1$") {
		t.Errorf("got %s", content)
	}
	if info, err := os.Stat(h.server.passwordFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	second, err := SetPassword(h.server.passwordFile)
	if err != nil || second == h.password || len(second) != 27 {
		t.Errorf("got %q, %v", second, err)
	}
}

// A password that an older version stored lets its owner in still, and one at
// a cost that nobody should pay does not.
func TestPasswordAtAnotherCost(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	salt := []byte("sixteen bytes of")
	store := func(cost argonCost) {
		t.Helper()
		stored := passwordHash{cost, salt, argonCost{19 * 1024, 2}.hash(h.password, salt)}
		if err := os.WriteFile(h.server.passwordFile, []byte(stored.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store(argonCost{19 * 1024, 2})
	if status, body := h.login(h.DID, h.password); status != 200 {
		t.Errorf("got %d %v", status, body)
	}
	for _, cost := range []argonCost{{1 << 20, 2}, {19 * 1024, 1 << 20}, {19 * 1024, 0}} {
		store(cost)
		if status, _ := h.login(h.DID, h.password); status != 500 || !strings.Contains(h.logged(), "tidings hold password") {
			t.Errorf("%+v: got %d", cost, status)
		}
	}
}

func TestLoginsAreOffByDefault(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.Login = false })
	h.Want("POST", loginMethod, `{"identifier":"%","password":"`+h.password+`"}`, 401, "AuthenticationRequired", "hold.login: true")
	h.Want("POST", "com.atproto.repo.createRecord", `{}`, 401, "AuthenticationRequired", "hold.login: true")
	// Not even with a token from when they were allowed.
	secret, err := h.server.tokenSecret()
	if err != nil {
		t.Fatal(err)
	}
	if h.Token, err = accessToken.issue(h.DID, "s", "x", secret, time.Now()); err != nil {
		t.Fatal(err)
	}
	h.Want("POST", "com.atproto.repo.deleteRecord", `{"repo":"%","collection":"a.b.c","rkey":"k"}`, 401, "AuthenticationRequired", "hold.login: true")
}

func TestWithoutAPassword(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	if err := os.Remove(h.server.passwordFile); err != nil {
		t.Fatal(err)
	}
	h.Want("POST", loginMethod, `{"identifier":"%","password":"x"}`, 401, "AuthenticationRequired", "tidings hold password")
	if err := os.WriteFile(h.server.passwordFile, []byte("$argon2id$v=19$m=99999999,t=9,p=1$AA$AA"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Want("POST", loginMethod, `{"identifier":"%","password":"x"}`, 500, "InternalServerError", "Internal Server Error")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	_, body := h.login(testHost, h.password)
	access, refresh := body["accessJwt"].(string), body["refreshJwt"].(string)
	const get, renew = "com.atproto.server.getSession", "com.atproto.server.refreshSession"

	h.Token = access
	if got := h.Want("GET", get, "", 200, "", ""); got["handle"] != testHost || got["accessJwt"] != nil {
		t.Errorf("getSession: got %v", got)
	}
	h.Want("POST", renew, "", 400, "InvalidToken", "could not be verified")
	h.Token = refresh
	h.Want("GET", get, "", 400, "InvalidToken", "could not be verified")
	renewed := h.Want("POST", renew, "", 200, "", "")
	if renewed["accessJwt"] == access || renewed["refreshJwt"] == refresh {
		t.Errorf("refreshSession: got %v", renewed)
	}
	refresh = renewed["refreshJwt"].(string)

	h.Token = ""
	h.Want("GET", get, "", 401, "AuthMissing", "Authentication Required")
	secret, err := h.server.tokenSecret()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(did string, secret []byte, at time.Time) string {
		token, err := accessToken.issue(did, "s", "x", secret, at)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	parts := strings.Split(access, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`))
	for name, token := range map[string]string{
		"garbage":       "garbage",
		"other secret":  issue(h.DID, []byte("another secret of 32 bytes length"), h.clock()),
		"other account": issue("did:web:other.example.com", secret, h.clock()),
		"no signature":  parts[0] + "." + parts[1] + ".",
		"no algorithm":  none + "." + parts[1] + ".",
	} {
		h.Token = token
		if got := h.Want("GET", get, "", 400, "InvalidToken", "could not be verified"); got["handle"] != nil {
			t.Errorf("%s: passed", name)
		}
	}

	h.Token = access
	h.advance(accessToken.life - time.Minute)
	h.Want("GET", get, "", 200, "", "")
	h.advance(2 * time.Minute)
	h.Want("GET", get, "", 400, "ExpiredToken", "Token has expired")
	h.Token = refresh
	h.Want("POST", renew, "", 200, "", "")
	h.advance(refreshToken.life)
	h.Want("POST", renew, "", 400, "ExpiredToken", "Token has expired")
}

func TestANewPasswordEndsSessions(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	const get = "com.atproto.server.getSession"
	h.Want("GET", get, "", 200, "", "")
	if _, err := SetPassword(h.server.passwordFile); err != nil {
		t.Fatal(err)
	}
	h.Want("GET", get, "", 400, "InvalidToken", "could not be verified")
	h.Token = ""
	h.Want("POST", loginMethod, `{"identifier":"%","password":"`+h.password+`"}`, 401, "AuthenticationRequired", "Invalid identifier")
}

func TestBasicAuthorizationIsRefused(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	r := h.Request("GET", "/xrpc/com.atproto.server.getSession", "")
	r.SetBasicAuth("admin", h.password)
	if resp, body := h.Do(r); resp.StatusCode != 400 || !strings.Contains(string(body), "Unexpected authorization type") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// Who tries too often waits for the slow lane, and does not lock out others: not
// those who come from another address, nor those who know the password.
func TestLoginsAreLimited(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	loopback := netip.MustParsePrefix("127.0.0.1/32")
	exhaust := func() {
		for range loginsPerClient {
			for _, ours := range []bool{true, false} {
				if _, ok := h.server.logins.take(loginKey{loopback, ours}, h.clock()); !ok {
					t.Fatal("too early")
				}
			}
		}
	}
	fill := func() (leave func()) {
		for range slowWaiting / 4 {
			if !h.server.slow.places.Take(loopback) {
				t.Fatal("no place")
			}
		}
		return func() {
			for range slowWaiting / 4 {
				h.server.slow.places.Give(loopback)
			}
		}
	}
	refused := func(name, wait string) {
		t.Helper()
		resp, _ := h.Do(h.Request("POST", "/xrpc/"+loginMethod, `{"identifier":"`+name+`","password":"x"}`))
		if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != wait {
			t.Errorf("got %d, Retry-After %q, want 429 and %s", resp.StatusCode, resp.Header.Get("Retry-After"), wait)
		}
	}
	exhaust()
	leave := fill()
	refused("other.example.com", "300")
	refused(testHost, "10")
	if status, body := h.login(testHost, h.password); status != 429 {
		t.Errorf("nobody knows yet that this password is right: got %d %v", status, body)
	}
	leave()
	refused("other.example.com", "300")
	if status, body := h.login(testHost, "wrong"); status != 401 {
		t.Errorf("wrong, in the slow lane: got %d %v", status, body)
	}
	if status, body := h.login(testHost, h.password); status != 200 {
		t.Errorf("right, in the slow lane: got %d %v", status, body)
	}
	fill()
	for range 3 {
		if status, body := h.login(testHost, h.password); status != 200 {
			t.Errorf("a password that was right before: got %d %v", status, body)
		}
	}
	if status, body := h.login("other.example.com", h.password); status != 401 {
		t.Errorf("under another name: got %d %v", status, body)
	}
	refused(testHost, "10")
	old := h.password
	var err error
	if h.password, err = SetPassword(h.server.passwordFile); err != nil {
		t.Fatal(err)
	}
	if status, body := h.login(testHost, old); status != 429 {
		t.Errorf("the password before: got %d %v", status, body)
	}
	if _, ok := h.server.logins.take(loginKey{netip.MustParsePrefix("192.0.2.1/32"), true}, h.clock()); !ok {
		t.Error("another address is refused too")
	}
	h.advance(loginWindow)
	if status, body := h.login(testHost, h.password); status != 200 {
		t.Errorf("in the next window: got %d %v", status, body)
	}
}

func TestLoginLimitIsBounded(t *testing.T) {
	t.Parallel()
	var l loginLimit
	refused := 0
	now := time.Now()
	for i := range 3 * loginsOfAll {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if _, ok := l.take(loginKey{netip.PrefixFrom(addr, 32), true}, now); !ok {
			refused++
		}
	}
	if len(l.counts) != loginsOfAll || refused != 2*loginsOfAll {
		t.Errorf("%d are told apart, %d attempts refused", len(l.counts), refused)
	}
}

// The slow lane lets one after the other through, and keeps nobody waiting long.
func TestSlowLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newSlowLane()
		begun := time.Now()
		var through atomic.Int32
		var all sync.WaitGroup
		for i := range 4 * slowWaiting {
			client := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)
			all.Go(func() {
				leave, ok := l.enter(t.Context(), client)
				if ok {
					through.Add(1)
					leave()
				}
			})
		}
		all.Wait()
		if n, took := through.Load(), time.Since(begun); n != slowWaiting || took != slowWaiting*slowPause || took >= hashWait {
			t.Errorf("%d came through in %v", n, took)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, ok := l.enter(gone, netip.Prefix{}); ok || l.places.Taken() != 0 || len(l.turn) != 0 {
			t.Errorf("who has left: %v, and %d places are taken", ok, l.places.Taken())
		}
	})
}

// indigo's client logs in, refreshes a session that expired, and goes on.
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
	h.advance(accessToken.life + time.Minute)
	if err := write(); err != nil || refreshed != 1 {
		t.Errorf("after expiry: %v, %d refreshes", err, refreshed)
	}
}

const (
	getSession     = "com.atproto.server.getSession"
	refreshSession = "com.atproto.server.refreshSession"
	deleteSession  = "com.atproto.server.deleteSession"
)

// id is the jti of a token.
func (h *testHold) id(token string) string {
	h.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var c struct{ JTI string }
	if err != nil || json.Unmarshal(payload, &c) != nil || c.JTI == "" {
		h.Fatalf("not a token: %s", token)
	}
	return c.JTI
}

func TestRefreshTokensRotate(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	_, body := h.login(testHost, h.password)
	first := body["refreshJwt"].(string)
	refresh := func(token string) string {
		t.Helper()
		h.Token = token
		return h.Want("POST", refreshSession, "", 200, "", "")["refreshJwt"].(string)
	}
	second := refresh(first)
	h.advance(refreshGrace - time.Minute)
	if again := refresh(first); h.id(again) != h.id(second) || h.id(second) == h.id(first) {
		t.Error("a token used twice has two successors")
	}
	third := refresh(second)
	revoked := func(token string) {
		t.Helper()
		h.Token = token
		h.Want("POST", refreshSession, "", 400, "ExpiredToken", "Token has been revoked")
	}
	h.advance(2 * time.Minute) // the grace counts from the first use
	revoked(first)
	if h.id(refresh(second)) != h.id(third) {
		t.Error("another successor")
	}
	h.advance(refreshGrace)
	revoked(second)
	// A server that starts anew knows them still.
	again, err := New(Config{Identity: h.server.id, Repo: h.repo, Login: true, PasswordFile: h.server.passwordFile, Now: h.clock})
	if err != nil {
		t.Fatal(err)
	}
	h.server.sessions = again.sessions
	refresh(third)
}

func TestDeleteSession(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	_, mine := h.login(testHost, h.password)
	_, other := h.login(testHost, h.password)
	access, first := mine["accessJwt"].(string), mine["refreshJwt"].(string)
	h.Token = first
	second := h.Want("POST", refreshSession, "", 200, "", "")["refreshJwt"].(string)
	h.Token = ""
	h.Want("POST", deleteSession, "", 401, "AuthMissing", "")
	h.Token = access
	h.Want("POST", deleteSession, "", 400, "InvalidToken", "could not be verified")
	h.Token = second
	for range 2 {
		resp, body := h.Do(h.Request("POST", "/xrpc/"+deleteSession, ""))
		if resp.StatusCode != 200 || len(body) != 0 {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
	}
	for _, token := range []string{first, second} {
		h.Token = token
		h.Want("POST", refreshSession, "", 400, "ExpiredToken", "Token has been revoked")
	}
	h.Token = access
	h.Want("GET", getSession, "", 400, "ExpiredToken", "Token has been revoked")
	h.Token = other["accessJwt"].(string)
	h.Want("GET", getSession, "", 200, "", "")
	// Also with a token that has expired.
	h.Token = other["refreshJwt"].(string)
	h.advance(refreshToken.life + time.Hour)
	if resp, body := h.Do(h.Request("POST", "/xrpc/"+deleteSession, "")); resp.StatusCode != 200 {
		t.Errorf("expired: got %d %s", resp.StatusCode, body)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	now := h.clock()
	grants := map[string]grant{}
	for i := range maxGrants + 5 {
		grants[fmt.Sprint(i)] = grant{Session: "s", Expires: now.Add(time.Duration(i+1) * time.Hour)}
	}
	s := h.server.sessions
	if err := s.keep(grants); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.grants["4"]; ok || len(s.grants) != maxGrants {
		t.Errorf("%d are kept", len(s.grants))
	}
	read, err := openSessions(s.file, h.server.lg)
	if err != nil || len(read.grants) != maxGrants {
		t.Errorf("%d are read again, %v", len(read.grants), err)
	}
	if info, err := os.Stat(s.file); err != nil || info.Mode().Perm() != 0o600 || info.Size() > maxSessionsFile {
		t.Errorf("got %v, %v", info, err)
	}
	if err := os.WriteFile(s.file, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if read, err := openSessions(s.file, h.server.lg); err != nil || len(read.grants) != 0 {
		t.Errorf("damaged: got %d, %v", len(read.grants), err)
	}
}

// A service verifies the tokens with indigo's validator and our did.json.
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
	if a, b := token(""), token(""); h.id(a) == h.id(b) {
		t.Error("two tokens have one jti")
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
