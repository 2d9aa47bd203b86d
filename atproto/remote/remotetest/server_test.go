package remotetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

const owner = "did:web:registry.example.com"

// A caller sends calls of an account that the hold trusts.
type caller struct {
	*testing.T
	*Server
	key  atcrypto.PrivateKeyExportable
	used int // tokens
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{T: t, Server: New(t, Config{}), key: key}
	c.Trust(owner, public)
	return c
}

// token returns a token with changed claims; nil removes one.
func (c *caller) token(change map[string]any) string {
	c.used++
	all := map[string]any{
		"iss": owner, "aud": c.DID, "lxm": lexicon.NSIDNotifyManifest, "jti": fmt.Sprint(c.used), "exp": time.Now().Add(time.Minute).Unix(),
	}
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			c.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]any{"alg": "ES256K", "typ": "JWT"}) + "." + part(all)
	signature, err := c.key.HashAndSign([]byte(text))
	if err != nil {
		c.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// input returns a valid input with changed members; nil removes one.
func input(change map[string]any) map[string]any {
	digest := "sha256:" + strings.Repeat("a", 64)
	all := map[string]any{
		"repository": "oss/app", "tag": "v1", "userDid": owner, "manifestDigest": digest, "operation": "push",
		"manifest": map[string]any{"layers": []any{layer(nil)}},
	}
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

func layer(change map[string]any) map[string]any {
	all := map[string]any{"digest": "sha256:" + strings.Repeat("b", 64), "size": 7, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
	maps.Copy(all, change)
	return all
}

// call sends a call and returns the status and body of the answer.
func (c *caller) call(token string, body any, change func(*http.Request)) (int, string) {
	c.Helper()
	raw, ok := body.(string)
	if !ok {
		encoded, err := json.Marshal(body)
		if err != nil {
			c.Fatal(err)
		}
		raw = string(encoded)
	}
	r, err := http.NewRequestWithContext(c.Context(), http.MethodPost, c.URL+"/xrpc/"+lexicon.NSIDNotifyManifest, bytes.NewReader([]byte(raw)))
	if err != nil {
		c.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	if change != nil {
		change(r)
	}
	p, err := http.DefaultClient.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer p.Body.Close()
	answer, err := io.ReadAll(p.Body)
	if err != nil {
		c.Fatal(err)
	}
	return p.StatusCode, string(answer)
}

// The hold refuses what does not conform to the published schema, and tokens for something
// else, without an effect.
func TestStrict(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	long := func(n int) string { return strings.Repeat("x", n) }
	inLayer := func(change map[string]any) map[string]any {
		return map[string]any{"manifest": map[string]any{"layers": []any{layer(change)}}}
	}
	for name, tc := range map[string]struct {
		claims, input map[string]any
		status        int
		says          string
	}{
		"no repository":            {nil, map[string]any{"repository": nil}, 400, "InvalidRequest"},
		"no digest":                {nil, map[string]any{"manifestDigest": nil}, 400, "InvalidRequest"},
		"no manifest":              {nil, map[string]any{"manifest": nil}, 400, "InvalidRequest"},
		"no owner":                 {nil, map[string]any{"userDid": nil}, 400, "InvalidRequest"},
		"an owner that is no DID":  {nil, map[string]any{"userDid": "registry.example.com"}, 400, "InvalidRequest"},
		"a long repository":        {nil, map[string]any{"repository": long(257)}, 400, "InvalidRequest"},
		"a long tag":               {nil, map[string]any{"tag": long(129)}, 400, "InvalidRequest"},
		"a long visibility":        {nil, map[string]any{"visibility": long(17)}, 400, "InvalidRequest"},
		"a tag that is no string":  {nil, map[string]any{"tag": 7}, 400, "InvalidRequest"},
		"a size that is no number": {nil, inLayer(map[string]any{"size": "7"}), 400, "InvalidRequest"},
		"a fraction as the size":   {nil, inLayer(map[string]any{"size": 7.5}), 400, "InvalidRequest"},
		"a long digest":            {nil, inLayer(map[string]any{"digest": long(129)}), 400, "InvalidRequest"},
		"a long media type":        {nil, inLayer(map[string]any{"mediaType": long(257)}), 400, "InvalidRequest"},
		"too long for the record":  {nil, inLayer(map[string]any{"mediaType": long(129)}), 400, "InvalidRequest"},
		"another operation":        {nil, map[string]any{"operation": "copy"}, 400, "InvalidOperation"},
		"another owner":            {nil, map[string]any{"userDid": "did:web:other.example.com"}, 403, "UserMismatch"},
		"an unknown issuer":        {map[string]any{"iss": "did:web:other.example.com"}, nil, 401, "not a member"},
		"a service as the issuer":  {map[string]any{"iss": owner + "#atcr_hold"}, nil, 401, "not a member"},
		"another audience":         {map[string]any{"aud": "did:web:other.example.com"}, nil, 401, "audience"},
		"a longer audience":        {map[string]any{"aud": c.DID + "1"}, nil, 401, "audience"},
		"an unknown service":       {map[string]any{"aud": c.DID + "#atproto_pds"}, nil, 401, "audience"},
		"no audience":              {map[string]any{"aud": nil}, nil, 401, "audience"},
		"another method":           {map[string]any{"lxm": "io.atcr.hold.getQuota"}, nil, 401, "lxm"},
		"no method":                {map[string]any{"lxm": nil}, nil, 401, "lxm"},
		"expired":                  {map[string]any{"exp": time.Now().Add(-time.Second).Unix()}, nil, 401, "expired"},
		"expires late":             {map[string]any{"exp": time.Now().Add(time.Hour).Unix()}, nil, 401, "too late"},
		"no ID":                    {map[string]any{"jti": nil}, nil, 401, "jti"},
	} {
		if status, got := c.call(c.token(tc.claims), input(tc.input), nil); status != tc.status || !strings.Contains(got, tc.says) {
			t.Errorf("%s: got %d %s, want %d with %q", name, status, got, tc.status, tc.says)
		}
	}
	for name, change := range map[string]func(*http.Request){
		"GET":              func(r *http.Request) { r.Method = http.MethodGet },
		"another type":     func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"unknown length":   func(r *http.Request) { r.ContentLength = -1 },
		"no authorization": func(r *http.Request) { r.Header.Del("Authorization") },
	} {
		if status, got := c.call(c.token(nil), input(nil), change); status != 400 && status != 401 {
			t.Errorf("%s: got %d %s", name, status, got)
		}
	}
	forged := c.token(nil)
	for name, tc := range map[string]struct{ token, body string }{
		"another signature": {forged[:strings.LastIndexByte(forged, '.')] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)), `{}`},
		"two parts":         {"a.b", `{}`},
		"no JSON":           {c.token(nil), `{"repository":`},
		"a list":            {c.token(nil), `[]`},
		"too large":         {c.token(nil), `{"x":"` + long(1_000_000) + `"}`},
	} {
		if status, got := c.call(tc.token, tc.body, nil); status < 400 || status > 413 {
			t.Errorf("%s: got %d %s", name, status, got)
		}
	}
	if len(c.Layers()) > 0 || c.Counts(owner, "oss/app") != (Counts{}) {
		t.Errorf("a refused call had an effect: %v, %v", c.Layers(), c.Counts(owner, "oss/app"))
	}
}

// A valid call has an effect each time, as the hold knows no Idempotency-Key, and each token
// is good once.
func TestRepeated(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	token := c.token(nil)
	for i, want := range []int{200, 401} {
		if status, got := c.call(token, input(map[string]any{"unknown": true}), nil); status != want {
			t.Errorf("use %d of a token: %d %s", i+1, status, got)
		}
	}
	withKey := func(r *http.Request) { r.Header.Set(keyHeader, "push 1") }
	for range 2 {
		if status, got := c.call(c.token(nil), input(nil), withKey); status != 200 {
			t.Errorf("%d %s", status, got)
		}
	}
	if n := len(c.Layers()); n != 3 || c.Counts(owner, "oss/app").Pushes != 3 {
		t.Errorf("%d records, counts %+v, want 3 of both", n, c.Counts(owner, "oss/app"))
	}
}
