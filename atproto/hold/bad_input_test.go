package hold

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// bodies are the procedures that take one, with what they take at most.
func (h *testHold) bodies() map[string]int64 {
	most := map[string]int64{
		loginMethod:                     maxLogin,
		"com.atproto.repo.uploadBlob":   h.server.blobLimit,
		"com.atproto.repo.importRepo":   h.server.importLimit,
		"com.atproto.repo.applyWrites":  xrpc.MaxInput,
		"com.atproto.repo.createRecord": xrpc.MaxInput,
		"com.atproto.repo.putRecord":    xrpc.MaxInput,
		"com.atproto.repo.deleteRecord": xrpc.MaxInput,
	}
	for nsid, m := range h.server.rpc.Methods {
		if _, known := most[nsid]; !known && m.Verb == http.MethodPost && lexicon.HasInput(nsid) {
			h.Errorf("nothing is known of %s", nsid)
		}
	}
	return most
}

func mediaTypeOf(nsid string) string {
	switch nsid {
	case "com.atproto.repo.uploadBlob":
		return "image/png"
	case "com.atproto.repo.importRepo":
		return "application/vnd.ipld.car"
	}
	return "application/json"
}

// Every procedure that takes a body takes so much and no more, whether or not
// the client says beforehand how much is coming.
func TestOversizedBodies(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.BlobLimit, cfg.ImportLimit = 50_000, 60_000 })
	h.Token = h.token()
	h.fill(4, 20_000)
	car := h.raw("com.atproto.sync.getRepo?did=%")
	head := h.repo.Head()
	for nsid, most := range h.bodies() {
		body := strings.Repeat(" ", int(most)+1) // well-formed JSON as far as it goes
		if nsid == "com.atproto.repo.importRepo" {
			body = string(car)
		}
		for _, said := range []bool{true, false} {
			r := h.Request("POST", "/xrpc/"+nsid, body)
			r.Header.Set("Content-Type", mediaTypeOf(nsid))
			if !said {
				r.ContentLength = -1
			}
			resp, body := h.Do(r)
			var answer struct{ Error, Message string }
			if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != 413 ||
				!strings.HasPrefix(answer.Error, "PayloadTooLarge") || answer.Message != "request entity too large" {
				t.Errorf("%s, length said %v: got %d %s", nsid, said, resp.StatusCode, body)
			}
		}
	}
	if h.repo.Head() != head {
		t.Error("the head moved")
	}
}

// Every procedure gives up on a client that does not go on sending.
func TestStalledBodies(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.server.rpc.BodyTimeout = 100 * time.Millisecond
	for nsid := range h.bodies() {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /xrpc/%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{", nsid, mediaTypeOf(nsid), h.Token)
		if err != nil {
			t.Fatal(err)
		}
		var answer bytes.Buffer
		if _, err := answer.ReadFrom(conn); err != nil || !strings.HasPrefix(answer.String(), "HTTP/1.1 400") || !strings.Contains(answer.String(), "took too long") {
			t.Errorf("%s: got %q, %v", nsid, answer.String(), err)
		}
	}
}

// Who has not logged in has nothing read of him.
func TestBodiesOfStrangers(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	for nsid := range h.bodies() {
		if nsid == loginMethod {
			continue
		}
		for name, header := range map[string]string{"AuthMissing": "", "InvalidToken": "Bearer x.y.z"} {
			r := h.Request("POST", "/xrpc/"+nsid, "")
			body := &unread{}
			r.Body, r.ContentLength = body, -1
			r.Header.Set("Content-Type", mediaTypeOf(nsid))
			r.Header.Set("Expect", "100-continue")
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute, DisableKeepAlives: true}}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			var answer struct{ Error string }
			err = json.NewDecoder(resp.Body).Decode(&answer)
			resp.Body.Close()
			if err != nil || resp.StatusCode/100 != 4 || answer.Error != name || body.asked {
				t.Errorf("%s: got %d %s, the body was asked for: %v", nsid, resp.StatusCode, answer.Error, body.asked)
			}
		}
	}
}

// unread is a body that nobody should want.
type unread struct{ asked bool }

func (u *unread) Read(b []byte) (int, error) { u.asked = true; return len(b), nil }
func (u *unread) Close() error               { return nil }

// A token is good for what it was issued for and for nothing else.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	_, mine := h.login(testHost, h.password)
	access, refresh := mine["accessJwt"].(string), mine["refreshJwt"].(string)
	h.Token = access
	service := h.Want("GET", "com.atproto.server.getServiceAuth?aud=%&lxm=com.atproto.repo.applyWrites", "", 200, "", "")["token"].(string)
	secret, err := h.server.tokenSecret()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// made is a token as ours are, but for a change.
	made := func(kind tokenKind, from string, alg jwt.SigningMethod, key any, change func(header, claims map[string]any)) string {
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
		h.Token = made(side.kind, side.good, hs256, secret, same)
		h.Want(side.verb, side.method, "", 200, "", "") // so what is refused below is so for its change
		for name, token := range map[string]string{
			"alg none":               made(side.kind, side.good, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, same),
			"alg none with a sig":    made(side.kind, side.good, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, same) + "x",
			"HS384":                  made(side.kind, side.good, jwt.SigningMethodHS384, secret, same),
			"HS512":                  made(side.kind, side.good, jwt.SigningMethodHS512, secret, same),
			"RS256":                  made(side.kind, side.good, jwt.SigningMethodRS256, pair, same),
			"PS256":                  made(side.kind, side.good, jwt.SigningMethodPS256, pair, same),
			"signed by the DID":      made(side.kind, side.good, hs256, []byte(h.DID), same),
			"no key":                 made(side.kind, side.good, hs256, []byte{}, same),
			"for another service":    made(side.kind, side.good, hs256, secret, claim("aud", "did:web:api.example.com")),
			"for nobody":             made(side.kind, side.good, hs256, secret, claim("aud", nil)),
			"for a fragment of ours": made(side.kind, side.good, hs256, secret, claim("aud", h.DID+"#atproto_pds")),
			"of another account":     made(side.kind, side.good, hs256, secret, claim("sub", "did:web:other.example.com")),
			"of nobody":              made(side.kind, side.good, hs256, secret, claim("sub", nil)),
			"for ever":               made(side.kind, side.good, hs256, secret, claim("exp", nil)),
			"until a word":           made(side.kind, side.good, hs256, secret, claim("exp", "tomorrow")),
			"not yet":                made(side.kind, side.good, hs256, secret, claim("nbf", h.clock().Add(time.Hour).Unix())),
			"no scope":               made(side.kind, side.good, hs256, secret, claim("scope", nil)),
			"the other's scope":      made(side.kind, side.good, hs256, secret, claim("scope", other.scope)),
			"the other's typ":        made(other, side.good, hs256, secret, same),
			"typ JWT":                made(tokenKind{typ: "JWT"}, side.good, hs256, secret, same),
			"an app password's":      made(side.kind, side.good, hs256, secret, claim("scope", "com.atproto.appPass")),
			"of a service, by lxm":   service,
		} {
			h.Token = token
			if h.Want(side.verb, side.method, "", 400, "InvalidToken", "could not be verified"); t.Failed() {
				t.Fatalf("%s, %s", side.kind.typ, name)
			}
		}
		h.Token = made(side.kind, side.good, hs256, secret, claim("exp", h.clock().Add(-time.Second).Unix()))
		h.Want(side.verb, side.method, "", 400, "ExpiredToken", "Token has expired")
	}
	// The two for one another, and a session that never was.
	h.Token = refresh
	h.Want("GET", getSession, "", 400, "InvalidToken", "")
	h.Token = access
	h.Want("POST", refreshSession, "", 400, "InvalidToken", "")
	h.Token = made(accessToken, access, hs256, secret, claim("sid", "another"))
	h.Want("GET", getSession, "", 400, "ExpiredToken", "revoked")
	h.Token = made(refreshToken, refresh, hs256, secret, claim("jti", "another"))
	h.Want("POST", refreshSession, "", 400, "ExpiredToken", "revoked")
}
