package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestPasswordFile(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	content, err := os.ReadFile(h.sessions.cfg.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), h.password) || !strings.HasPrefix(string(content), "$argon2id$v=19$m=7168,t=5,p=1$") {
		t.Errorf("got %s", content)
	}
	if info, err := os.Stat(h.sessions.cfg.PasswordFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	second, err := SetPassword(h.sessions.cfg.PasswordFile)
	if err != nil || second == h.password || len(second) != 27 {
		t.Errorf("got %q, %v", second, err)
	}
}

// A hash with the cost of an older version is valid, and one with an excessive cost
// is not.
func TestPasswordCost(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	salt := []byte("sixteen bytes of")
	store := func(cost argonCost) {
		t.Helper()
		stored := passwordHash{cost, salt, argonCost{19 * 1024, 2}.hash(h.password, salt)}
		if err := os.WriteFile(h.sessions.cfg.PasswordFile, []byte(stored.String()), 0o600); err != nil {
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

func TestLoginsNotAllowed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(cfg *SessionConfig) { cfg.Login = false })
	h.Want("POST", loginMethod, `{"identifier":"%","password":"`+h.password+`"}`, 401, "AuthenticationRequired", "hold.login: true")
	// Tokens from before are refused as well.
	secret, err := h.sessions.tokenSecret()
	if err != nil {
		t.Fatal(err)
	}
	if h.Token, err = accessToken.issue(h.DID, "s", "x", secret, time.Now()); err != nil {
		t.Fatal(err)
	}
	h.Want("GET", getSession, "", 401, "AuthenticationRequired", "hold.login: true")
}

func TestMissingPassword(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if err := os.Remove(h.sessions.cfg.PasswordFile); err != nil {
		t.Fatal(err)
	}
	h.Want("POST", loginMethod, `{"identifier":"%","password":"x"}`, 401, "AuthenticationRequired", "tidings hold password")
	if err := os.WriteFile(h.sessions.cfg.PasswordFile, []byte("$argon2id$v=19$m=99999999,t=9,p=1$AA$AA"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Want("POST", loginMethod, `{"identifier":"%","password":"x"}`, 500, "InternalServerError", "Internal Server Error")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, body := h.login(hostname, h.password)
	access, refresh := body["accessJwt"].(string), body["refreshJwt"].(string)
	h.Token = access
	h.Want("GET", getSession, "", 200, "", "")
	h.Want("POST", refreshSession, "", 400, "InvalidToken", "could not be verified")
	h.Token = refresh
	h.Want("GET", getSession, "", 400, "InvalidToken", "could not be verified")
	renewed := h.Want("POST", refreshSession, "", 200, "", "")
	if renewed["accessJwt"] == access || renewed["refreshJwt"] == refresh {
		t.Errorf("refreshSession: got %v", renewed)
	}
	refresh = renewed["refreshJwt"].(string)

	h.Token = ""
	h.Want("GET", getSession, "", 401, "AuthMissing", "Authentication Required")
	secret, err := h.sessions.tokenSecret()
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
		if h.Want("GET", getSession, "", 400, "InvalidToken", "could not be verified"); t.Failed() {
			t.Fatal(name)
		}
	}

	h.Token = access
	h.advance(accessToken.life - time.Minute)
	h.Want("GET", getSession, "", 200, "", "")
	h.advance(2 * time.Minute)
	h.Want("GET", getSession, "", 400, "ExpiredToken", "Token has expired")
	h.Token = refresh
	h.Want("POST", refreshSession, "", 200, "", "")
	h.advance(refreshToken.life)
	h.Want("POST", refreshSession, "", 400, "ExpiredToken", "Token has expired")
}

func TestNewPasswordEndsSessions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, body := h.login(hostname, h.password)
	h.Token = body["accessJwt"].(string)
	h.Want("GET", getSession, "", 200, "", "")
	if _, err := SetPassword(h.sessions.cfg.PasswordFile); err != nil {
		t.Fatal(err)
	}
	h.Want("GET", getSession, "", 400, "InvalidToken", "could not be verified")
	h.Token = ""
	h.Want("POST", loginMethod, `{"identifier":"%","password":"`+h.password+`"}`, 401, "AuthenticationRequired", "Invalid identifier")
}

func TestBasicAuthorization(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.Request("GET", "/xrpc/"+getSession, "")
	r.SetBasicAuth("admin", h.password)
	if resp, body := h.Do(r); resp.StatusCode != 400 || !strings.Contains(string(body), "Unexpected authorization type") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

func TestRefreshTokensRotate(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, body := h.login(hostname, h.password)
	first := body["refreshJwt"].(string)
	refresh := func(token string) string {
		t.Helper()
		h.Token = token
		return h.Want("POST", refreshSession, "", 200, "", "")["refreshJwt"].(string)
	}
	second := refresh(first)
	h.advance(refreshGrace - time.Minute)
	if again := refresh(first); h.id(again) != h.id(second) || h.id(second) == h.id(first) {
		t.Error("a token that was used twice has two successors")
	}
	third := refresh(second)
	revoked := func(token string) {
		t.Helper()
		h.Token = token
		h.Want("POST", refreshSession, "", 400, "ExpiredToken", "Token has been revoked")
	}
	h.advance(2 * time.Minute) // refreshGrace counts from the first use
	revoked(first)
	if h.id(refresh(second)) != h.id(third) {
		t.Error("a token has another successor")
	}
	h.advance(refreshGrace)
	revoked(second)
	// They are valid after a restart.
	again, err := OpenSessions(h.sessions.cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.sessions = again
	refresh(third)
}

func TestDeleteSession(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, mine := h.login(hostname, h.password)
	_, other := h.login(hostname, h.password)
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
	// An expired token is accepted.
	h.Token = other["refreshJwt"].(string)
	h.advance(refreshToken.life + time.Hour)
	if resp, body := h.Do(h.Request("POST", "/xrpc/"+deleteSession, "")); resp.StatusCode != 200 {
		t.Errorf("expired: got %d %s", resp.StatusCode, body)
	}
}

func TestGrantsLimit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	now := h.clock()
	grants := map[string]grant{}
	for i := range maxGrants + 5 {
		grants[fmt.Sprint(i)] = grant{Session: "s", Expires: now.Add(time.Duration(i+1) * time.Hour)}
	}
	s := h.sessions.grants
	if err := s.store(grants); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.byID["4"]; ok || len(s.byID) != maxGrants {
		t.Errorf("%d grants are kept", len(s.byID))
	}
	read, err := openGrants(s.file, h.sessions.cfg.Logger)
	if err != nil || len(read.byID) != maxGrants {
		t.Errorf("%d grants are read, %v", len(read.byID), err)
	}
	if info, err := os.Stat(s.file); err != nil || info.Mode().Perm() != 0o600 || info.Size() > maxGrantsFile {
		t.Errorf("got %v, %v", info, err)
	}
	if err := os.WriteFile(s.file, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if read, err := openGrants(s.file, h.sessions.cfg.Logger); err != nil || len(read.byID) != 0 {
		t.Errorf("damaged: got %d, %v", len(read.byID), err)
	}
}

// id returns the jti of a token.
func (h *harness) id(token string) string {
	h.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var c struct{ JTI string }
	if err != nil || json.Unmarshal(payload, &c) != nil || c.JTI == "" {
		h.Fatalf("not a token: %s", token)
	}
	return c.JTI
}

// A token is valid only for its own purpose.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, mine := h.login(hostname, h.password)
	access, refresh := mine["accessJwt"].(string), mine["refreshJwt"].(string)
	service, err := Sign(h.sessions.cfg.Identity, h.DID, "com.atproto.repo.applyWrites", 0, h.clock())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := h.sessions.tokenSecret()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// forge returns one of our tokens with a change.
	forge := func(kind tokenKind, from string, alg jwt.SigningMethod, key any, change func(header, claims map[string]any)) string {
		t.Helper()
		var c jwt.MapClaims
		if _, _, err := jwt.NewParser().ParseUnverified(from, &c); err != nil {
			t.Fatal(err)
		}
		token := jwt.NewWithClaims(alg, c)
		token.Header["typ"] = kind.typ
		change(token.Header, c)
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	claim := func(name string, value any) func(_, claims map[string]any) {
		return func(_, claims map[string]any) {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
	}
	same := func(map[string]any, map[string]any) {}
	hs256 := jwt.SigningMethodHS256
	for _, side := range []struct {
		kind   tokenKind
		good   string
		verb   string
		method string
	}{
		{accessToken, access, "GET", getSession},
		{refreshToken, refresh, "POST", refreshSession},
	} {
		other := refreshToken
		if side.kind == refreshToken {
			other = accessToken
		}
		h.Token = forge(side.kind, side.good, hs256, secret, same)
		h.Want(side.verb, side.method, "", 200, "", "") // so the changes below are the reason for the errors
		for name, token := range map[string]string{
			"alg none":            forge(side.kind, side.good, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, same),
			"alg none with a sig": forge(side.kind, side.good, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, same) + "x",
			"HS384":               forge(side.kind, side.good, jwt.SigningMethodHS384, secret, same),
			"HS512":               forge(side.kind, side.good, jwt.SigningMethodHS512, secret, same),
			"RS256":               forge(side.kind, side.good, jwt.SigningMethodRS256, pair, same),
			"PS256":               forge(side.kind, side.good, jwt.SigningMethodPS256, pair, same),
			"signed with the DID": forge(side.kind, side.good, hs256, []byte(h.DID), same),
			"signed with no key":  forge(side.kind, side.good, hs256, []byte{}, same),
			"other audience":      forge(side.kind, side.good, hs256, secret, claim("aud", "did:web:api.example.com")),
			"no audience":         forge(side.kind, side.good, hs256, secret, claim("aud", nil)),
			"with a fragment":     forge(side.kind, side.good, hs256, secret, claim("aud", h.DID+"#atproto_pds")),
			"other account":       forge(side.kind, side.good, hs256, secret, claim("sub", "did:web:other.example.com")),
			"no account":          forge(side.kind, side.good, hs256, secret, claim("sub", nil)),
			"no expiry":           forge(side.kind, side.good, hs256, secret, claim("exp", nil)),
			"expiry is a word":    forge(side.kind, side.good, hs256, secret, claim("exp", "tomorrow")),
			"not yet":             forge(side.kind, side.good, hs256, secret, claim("nbf", h.clock().Add(time.Hour).Unix())),
			"no scope":            forge(side.kind, side.good, hs256, secret, claim("scope", nil)),
			"scope of other kind": forge(side.kind, side.good, hs256, secret, claim("scope", other.scope)),
			"typ of other kind":   forge(other, side.good, hs256, secret, same),
			"typ JWT":             forge(tokenKind{typ: "JWT"}, side.good, hs256, secret, same),
			"app password":        forge(side.kind, side.good, hs256, secret, claim("scope", "com.atproto.appPass")),
			"service token":       service,
		} {
			h.Token = token
			if h.Want(side.verb, side.method, "", 400, "InvalidToken", "could not be verified"); t.Failed() {
				t.Fatalf("%s, %s", side.kind.typ, name)
			}
		}
		h.Token = forge(side.kind, side.good, hs256, secret, claim("exp", h.clock().Add(-time.Second).Unix()))
		h.Want(side.verb, side.method, "", 400, "ExpiredToken", "Token has expired")
	}
	// One kind instead of the other, and an unknown session.
	h.Token = refresh
	h.Want("GET", getSession, "", 400, "InvalidToken", "")
	h.Token = access
	h.Want("POST", refreshSession, "", 400, "InvalidToken", "")
	h.Token = forge(accessToken, access, hs256, secret, claim("sid", "another"))
	h.Want("GET", getSession, "", 400, "ExpiredToken", "revoked")
	h.Token = forge(refreshToken, refresh, hs256, secret, claim("jti", "another"))
	h.Want("POST", refreshSession, "", 400, "ExpiredToken", "revoked")
}
