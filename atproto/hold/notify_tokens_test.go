package hold

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
)

// jwt signs a token with changed members of the header (typ, alg, kid) and claims; those
// that are nil are removed.
func jwt(t *testing.T, key atcrypto.PrivateKey, claims, changes map[string]any) string {
	t.Helper()
	header := map[string]any{"typ": "JWT", "alg": "ES256"}
	claims = maps.Clone(claims)
	for name, value := range changes {
		into := claims
		if name == "typ" || name == "alg" || name == "kid" {
			into = header
		}
		into[name] = value
	}
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	parts := make([]string, 2)
	for i, v := range []any{header, claims} {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(raw)
	}
	signed := strings.Join(parts, ".")
	signature, err := key.HashAndSign([]byte(signed))
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Each token that is not valid has exactly this answer, nothing is recorded, and no document
// leads to an internal address.
func TestInvalidTokens(t *testing.T) {
	t.Parallel()
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	const issuer, moved, inward = ownerDID, "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", "did:plc:cccccccccccccccccccccccc"
	var inside atomic.Int64
	internal := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	t.Cleanup(internal.Close)
	directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		did := strings.TrimPrefix(r.URL.Path, "/")
		if did == inward {
			http.Redirect(w, r, internal.URL, http.StatusFound)
			return
		}
		id := identity.Identity{DID: did, Handle: identity.HandleInvalid, Hostname: "other.example.com", Key: key}
		if did == moved {
			id.DID = issuer
		}
		document, err := id.Document()
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(document)
	}))
	t.Cleanup(directory.Close)
	h, n, _ := notifiable(t, func(cfg *Config) {
		cfg.PLC, cfg.Registries, cfg.Owners, cfg.Pulls = directory.URL, nil, []string{issuer}, auth.PullsAnyone
	})
	other, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	now, valid := h.clock(), map[string]any{"iss": issuer, "aud": h.DID, "lxm": notify, "exp": h.clock().Add(time.Minute).Unix()}
	with := func(name string, value any) string { return jwt(t, key, valid, map[string]any{name: value}) }
	body := notification("did:plc:abc", issuer)
	used := with("jti", "used")
	h.Token = used
	h.Want("POST", notify, body, 200, "", "")
	for _, tc := range []struct {
		name, token   string
		status        int
		error, answer string
	}{
		{"none", "", 401, "AuthMissing", "Authentication Required"},
		{"no JWT", "x.y", 401, "BadJwt", "poorly formatted jwt"},
		{"no exp", with("exp", nil), 401, "BadJwt", "poorly formatted jwt"},
		{"expired", with("exp", now.Unix()-1), 401, "JwtExpired", "jwt expired"},
		{"valid for a day", with("exp", now.Add(24*time.Hour).Unix()), 401, "BadJwtExpiration", "jwt expires more than 5m0s from now"},
		{"another audience", with("aud", "did:web:other.example.com"), 401, "BadJwtAudience", "jwt audience does not match service did: it must be " + h.DID + "#atcr_hold"},
		{"another service", with("aud", h.DID+"#atproto_labeler"), 401, "BadJwtAudience", "jwt audience does not match service did: it must be " + h.DID + "#atcr_hold"},
		{"no lxm", with("lxm", nil), 401, "BadJwtLexiconMethod", `missing jwt lexicon method ("lxm"). must match: ` + notify},
		{"another lxm", with("lxm", export), 401, "BadJwtLexiconMethod", `bad jwt lexicon method ("lxm"). must match: ` + notify},
		{"alg none", with("alg", "none"), 401, "BadJwtSignature", "jwt algorithm must be ES256 or ES256K"},
		{"alg of another key", with("alg", "ES256K"), 401, "BadJwtSignature", "jwt signature does not match jwt issuer"},
		{"unknown key", jwt(t, other, valid, nil), 401, "BadJwtSignature", "jwt signature does not match jwt issuer"},
		{"key of another purpose", with("kid", "#atproto_label"), 401, "BadJwtSignature", "jwt must be signed with the #atproto key of its issuer"},
		{"session", with("typ", "at+jwt"), 401, "BadJwtType", `Invalid jwt type "at+jwt"`},
		{"used", used, 401, "BadJwtReplay", "this jwt was used before; get a new one for each call"},
		{"issuer with a service", with("iss", issuer+"#atproto"), 401, "BadJwtIss", "jwt issuer must be a DID without a fragment"},
		{"issuer at an address", with("iss", "did:web:10.0.0.1"), 401, "BadJwtIss", `"did:web:10.0.0.1" can't be resolved: use a did:web of a domain or a did:plc`},
		{"issuer on localhost", with("iss", "did:web:localhost"), 401, "BadJwtIss", `"did:web:localhost" is on localhost, which is another machine for its issuer`},
		{"document of another", with("iss", moved), 401, "BadJwtIss", "the DID document of " + moved + " has another DID"},
		{"document that points inward", with("iss", inward), 503, "ServiceUnavailable", "can't fetch the DID document of " + inward + "; try again"},
	} {
		h.Token = tc.token
		resp, raw := h.Do(h.Request("POST", "/xrpc/"+notify, body))
		var got struct{ Error, Message string }
		if json.Unmarshal(raw, &got) != nil || resp.StatusCode != tc.status || got.Error != tc.error || got.Message != tc.answer {
			t.Errorf("%s: got %d %s, want %d %s %q", tc.name, resp.StatusCode, raw, tc.status, tc.error, tc.answer)
		}
		if strings.Contains(got.Message, "127.0.0.1") {
			t.Errorf("%s: the answer shows an address: %s", tc.name, got.Message)
		}
	}
	if len(n.all) != 1 || inside.Load() != 0 {
		t.Errorf("%d notifications are recorded, and an internal address had %d requests", len(n.all), inside.Load())
	}
	h.Token = with("jti", fmt.Sprint("after", len(n.all)))
	h.Want("POST", notify, body, 200, "", "")
}
