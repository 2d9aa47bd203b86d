package hold

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/auth"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const notify = lexicon.NSIDNotifyManifest

// told takes notices in place of a notifier.
type told struct {
	mu   sync.Mutex
	all  []Notice
	fail error
}

func (n *told) Notify(_ context.Context, notice Notice) (lexicon.NotifyManifestOutput, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return lexicon.NotifyManifestOutput{}, n.fail
	}
	n.all = append(n.all, notice)
	return lexicon.NotifyManifestOutput{Success: true, Operation: notice.Operation, StatsUpdated: true}, nil
}

// other is an account elsewhere that may call.
type other struct {
	did       string
	key       atcrypto.PrivateKeyExportable
	published *published
}

func (o *other) document(h *testHold) answered {
	h.Helper()
	public, err := o.key.PublicKey()
	if err != nil {
		h.Fatal(err)
	}
	return answered{200, fmt.Sprintf(`{"id":%q,"verificationMethod":[{"id":"%[1]s#atproto","type":"Multikey","controller":%[1]q,"publicKeyMultibase":%[2]q}]}`, o.did, public.Multibase())}
}

// publish serves the other's document, or what is given in its place.
func (o *other) publish(h *testHold, answers ...answered) {
	if len(answers) == 0 {
		answers = []answered{o.document(h)}
	}
	o.published = &published{answers: answers, begun: time.Now()}
	h.server.callers[o.did].source.Client.Transport = o.published
}

func newOther(h *testHold, did string) *other {
	h.Helper()
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		h.Fatal(err)
	}
	o := &other{did: did, key: key}
	o.publish(h)
	return o
}

// claims are those of a good token for the hold.
func (o *other) claims(h *testHold) map[string]any {
	return map[string]any{
		"iss": o.did, "aud": h.DID, "lxm": notify, "jti": serviceTokenID(),
		"iat": h.clock().Unix(), "exp": h.clock().Add(time.Minute).Unix(),
	}
}

// sign makes a token; changes replace claims, or take out those that are nil.
func (o *other) sign(h *testHold, changes map[string]any) string {
	h.Helper()
	header := map[string]any{"typ": "JWT", "alg": "ES256"}
	if _, ok := o.key.(*atcrypto.PrivateKeyK256); ok {
		header["alg"] = "ES256K"
	}
	claims := o.claims(h)
	for name, value := range changes {
		into := claims
		if name == "typ" || name == "alg" {
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
	sig, err := o.key.HashAndSign([]byte(token))
	if err != nil {
		h.Fatal(err)
	}
	return token + "." + base64.RawURLEncoding.EncodeToString(sig)
}

const (
	registryDID = "did:web:registry.example.org"
	ownerDID    = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
)

func listening(t *testing.T) (*testHold, *told, *other) {
	t.Helper()
	n := &told{}
	h := newHold(t, func(cfg *Config) {
		cfg.Notices, cfg.Registries, cfg.Owners = n, []string{registryDID}, []string{ownerDID}
	})
	return h, n, newOther(h, registryDID)
}

// notice is a body, with changes made to it.
func notice(changes ...string) string {
	body := `{"repository":"oss/app","tag":"v1","userDid":"did:plc:abc","manifestDigest":"sha256:` + strings.Repeat("a", 64) + `","manifest":{"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + strings.Repeat("c", 64) + `","size":7},` +
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:` + strings.Repeat("b", 64) + `","size":10}]}}`
	return strings.NewReplacer(changes...).Replace(body)
}

func TestNotifyManifest(t *testing.T) {
	t.Parallel()
	h, n, reg := listening(t)
	owner := newOther(h, ownerDID)
	lxm := syntax.NSID(notify)
	for _, tc := range []struct {
		name, token, body, key string
		status                 int
		error, says            string
	}{
		{name: "a push", body: notice(), status: 200},
		{name: "a push that says so", body: notice(`"tag"`, `"operation":"push","tag"`), status: 200},
		{name: "a pull", body: notice(`"tag"`, `"operation":"pull","tag"`), status: 200},
		{name: "without a tag", body: notice(`"tag":"v1",`, ""), status: 200},
		{name: "with what nobody knows", body: notice(`"tag"`, `"userHandle":"a.test","tag"`, `"size":7`, `"size":7,"data":"eA=="`), status: 200},
		{name: "with a key", body: notice(), key: "push 1 of 2", status: 200},
		{name: "for a service in the document", token: reg.sign(h, map[string]any{"aud": h.DID + "#atproto_pds"}), body: notice(), status: 200},
		{name: "a list of one", token: reg.sign(h, map[string]any{"aud": []string{h.DID}}), body: notice(), status: 200},
		{name: "no jti", token: reg.sign(h, map[string]any{"jti": nil}), body: notice(), status: 200},
		{name: "an owner", token: owner.sign(h, nil), body: notice("did:plc:abc", ownerDID), status: 200},
		{name: "an owner of another's", token: owner.sign(h, nil), body: notice(), status: 403, error: "UserMismatch", says: "images of its own, and userDid is did:plc:abc"},

		{name: "a delete", body: notice(`"tag"`, `"operation":"delete","tag"`), status: 400, error: "InvalidOperation", says: "push and pull"},
		{name: "no repository", body: notice(`"repository":"oss/app",`, ""), status: 400, error: "InvalidRequest", says: `missing required key "repository" at $`},
		{name: "a repository upwards", body: notice("oss/app", "../app"), status: 400, error: "InvalidRequest", says: "repository at $.repository"},
		{name: "a repository in capitals", body: notice("oss/app", "oss/App"), status: 400, error: "InvalidRequest", says: "at $.repository"},
		{name: "another's repository", body: notice("oss/app", "did:plc:abc/app"), status: 400, error: "InvalidRequest", says: "at $.repository"},
		{name: "private", body: notice(`"tag":"v1"`, `"tag":"v1","visibility":"private"`), status: 200},
		{name: "a visibility too long", body: notice(`"tag":"v1"`, `"tag":"v1","visibility":"`+strings.Repeat("x", 17)+`"`), status: 400, error: "InvalidRequest", says: "maximum 16"},
		{name: "a visibility that is no text", body: notice(`"tag":"v1"`, `"tag":"v1","visibility":true`), status: 400, error: "InvalidRequest", says: "visibility"},
		{name: "a repository too long", body: notice("oss/app", strings.Repeat("a", 257)), status: 400, error: "InvalidRequest", says: "maximum 256"},
		{name: "twice, in capitals", body: notice(`"tag"`, `"Repository":"../app","tag"`), status: 200},
		{name: "only in capitals", body: notice(`"repository"`, `"Repository"`), status: 400, error: "InvalidRequest", says: `missing required key "repository"`},
		{name: "twice, with another owner", token: owner.sign(h, nil), body: notice(`"userDid":"did:plc:abc"`, `"userDid":"did:plc:abc","UserDID":"`+ownerDID+`"`), status: 403, error: "UserMismatch"},
		{name: "numbers with a fraction of zero", body: notice(`"size":10`, `"size":10.0`, `"size":7`, `"size":0.7e1`), status: 200},
		{name: "a fraction", body: notice(`"size":10`, `"size":10.5`), status: 400, error: "InvalidRequest", says: "layers[0].size"},
		{name: "no tag's name", body: notice(`"v1"`, `"v 1"`), status: 400, error: "InvalidRequest", says: "not a tag at $.tag"},
		{name: "no DID", body: notice("did:plc:abc", "abc"), status: 400, error: "InvalidRequest", says: "$.userDid"},
		{name: "no digest", body: notice("sha256:aaa", "sha256:xaa"), status: 400, error: "InvalidRequest", says: "$.manifestDigest"},
		{name: "no layer's digest", body: notice("sha256:bbb", "sha256:xbb"), status: 400, error: "InvalidRequest", says: "$.manifest.layers[0].digest"},
		{name: "no config's digest", body: notice("sha256:ccc", "sha256:xcc"), status: 400, error: "InvalidRequest", says: "$.manifest.config.digest"},
		{name: "more than there is", body: notice(`"size":10`, `"size":9007199254740991`), status: 400, error: "InvalidRequest", says: "layers[0].size"},
		{name: "a negative size", body: notice(`"size":10`, `"size":-1`), status: 400, error: "InvalidRequest", says: "layers[0].size"},
		{name: "a text for a list", body: notice(`"size":10`, `"size":10,"urls":"x"`), status: 400, error: "InvalidRequest", says: "urls"},
		{name: "no manifest", body: notice(`"manifest":`, `"image":`), status: 400, error: "InvalidRequest", says: `"manifest"`},
		{name: "no JSON", body: "{", status: 400, error: "SyntaxError"},
		{name: "too large", body: notice(`"tag"`, `"x":"`+strings.Repeat("x", xrpc.MaxInput)+`","tag"`), status: 413, error: "PayloadTooLargeError"},
		{name: "a key too long", body: notice(), key: strings.Repeat("k", 129), status: 400, error: "InvalidRequest", says: "Idempotency-Key takes one value of 1 to 128"},
		{name: "a key that is not ASCII", body: notice(), key: "schlüssel", status: 400, error: "InvalidRequest", says: "printable"},

		{name: "no token", token: "none", body: notice(), status: 401, error: "AuthMissing"},
		{name: "no JWT", token: "x.y", body: notice(), status: 401, error: "BadJwt"},
		{name: "no JSON in it", token: "eA.eA.eA", body: notice(), status: 401, error: "BadJwt"},
		{name: "a long one", token: reg.sign(h, map[string]any{"x": strings.Repeat("x", maxServiceToken)}), body: notice(), status: 401, error: "BadJwt"},
		{name: "no iss", token: reg.sign(h, map[string]any{"iss": nil}), body: notice(), status: 401, error: "BadJwt"},
		{name: "no exp", token: reg.sign(h, map[string]any{"exp": nil}), body: notice(), status: 401, error: "BadJwt"},
		{name: "no aud", token: reg.sign(h, map[string]any{"aud": nil}), body: notice(), status: 401, error: "BadJwt"},
		{name: "two auds", token: reg.sign(h, map[string]any{"aud": []string{h.DID, "did:web:x.example.com"}}), body: notice(), status: 401, error: "BadJwt"},
		{name: "over", token: reg.sign(h, map[string]any{"exp": h.clock().Unix() - 1}), body: notice(), status: 401, error: "JwtExpired"},
		{name: "for a year", token: reg.sign(h, map[string]any{"exp": h.clock().AddDate(1, 0, 0).Unix()}), body: notice(), status: 401, error: "BadJwtExpiration", says: "5m0s"},
		{name: "for ever and ever", token: reg.sign(h, map[string]any{"exp": 1e300}), body: notice(), status: 401},
		{name: "for another", token: reg.sign(h, map[string]any{"aud": "did:web:x.example.com"}), body: notice(), status: 401, error: "BadJwtAudience", says: "it must be %"},
		{name: "for a service that is not there", token: reg.sign(h, map[string]any{"aud": h.DID + "#atproto_labeler"}), body: notice(), status: 401, error: "BadJwtAudience"},
		{name: "for another method", token: reg.sign(h, map[string]any{"lxm": "com.atproto.repo.applyWrites"}), body: notice(), status: 401, error: "BadJwtLexiconMethod", says: "bad jwt lexicon method"},
		{name: "for any method", token: reg.sign(h, map[string]any{"lxm": nil}), body: notice(), status: 401, error: "BadJwtLexiconMethod", says: "missing"},
		{name: "for a session", token: reg.sign(h, map[string]any{"typ": "at+jwt"}), body: notice(), status: 401, error: "BadJwtType"},
		{name: "unsigned", token: reg.sign(h, map[string]any{"alg": "none"}), body: notice(), status: 401, error: "BadJwtSignature"},
		{name: "of another curve", token: reg.sign(h, map[string]any{"alg": "ES256K"}), body: notice(), status: 401, error: "BadJwtSignature"},
		{name: "signed by another", token: owner.sign(h, map[string]any{"iss": registryDID}), body: notice(), status: 401, error: "BadJwtSignature"},
		{name: "of a stranger", token: reg.sign(h, map[string]any{"iss": "did:web:stranger.example.com"}), body: notice(), status: 403, error: "Forbidden", says: "hold.registries or hold.owners"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(n.all)
			switch tc.token {
			case "":
				tc.token = reg.sign(h, nil)
			case "none":
				tc.token = ""
			}
			h.Token = tc.token
			r := h.Request("POST", "/xrpc/"+notify, tc.body)
			if tc.key != "" {
				r.Header.Set("Idempotency-Key", tc.key)
			}
			resp, raw := h.Do(r)
			var answer map[string]any
			if err := json.Unmarshal(raw, &answer); err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
			message, _ := answer["message"].(string)
			if resp.StatusCode != tc.status || tc.error != "" && answer["error"] != tc.error || !strings.Contains(message, strings.ReplaceAll(tc.says, "%", h.DID)) {
				t.Errorf("got %d %s, want %d %s %q", resp.StatusCode, raw, tc.status, tc.error, tc.says)
			}
			if got := len(n.all) - before; (got == 1) != (tc.status == 200) {
				t.Fatalf("%d notices", got)
			}
			if tc.status != 200 {
				return
			}
			last := n.all[before]
			if last.Key != tc.key || last.Token == "" || last.Repository != "oss/app" || len(last.Manifest.Layers) != 1 || answer["success"] != true {
				t.Errorf("got %+v, %s", last, raw)
			}
			if (last.Visibility == lexicon.VisibilityPrivate) != strings.Contains(tc.body, "visibility") {
				t.Errorf("its visibility is %q", last.Visibility)
			}
			// What is good once is not good twice.
			h.Want("POST", notify, tc.body, 401, "BadJwtReplay", "a new one for each call")
		})
	}
	// indigo's tokens, of both kinds of keys.
	for _, kind := range []string{"P-256", "K-256"} {
		if kind == "K-256" {
			key, err := atcrypto.GeneratePrivateKeyK256()
			if err != nil {
				t.Fatal(err)
			}
			reg.key = key
			h.advance(keyAgain) // a new key: it is looked for after a while
			reg.publish(h)
		}
		for _, aud := range []string{h.DID, h.DID + "#atproto_pds"} {
			token, err := auth.SignServiceAuth(registryDID, aud, time.Minute+time.Until(h.clock()), &lxm, reg.key)
			if err != nil {
				t.Fatal(err)
			}
			h.Token = token
			h.Want("POST", notify, notice(), 200, "", "")
		}
	}
	if issuers := slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, one := range n.all {
			if !yield(one.Issuer) {
				return
			}
		}
	})); !slices.Equal(issuers, []string{ownerDID, registryDID}) {
		t.Errorf("issuers %q", issuers)
	}
}

// A token of our own getServiceAuth is one that another hold takes.
func TestNotifyManifestWithOurServiceAuth(t *testing.T) {
	t.Parallel()
	n := &told{}
	h := newHold(t, func(cfg *Config) { cfg.Notices, cfg.Registries = n, []string{"did:web:" + testHost} })
	h.Token = h.token()
	token := h.Want("GET", "com.atproto.server.getServiceAuth?aud=%&lxm="+notify, "", 200, "", "")["token"].(string)
	h.server.callers[h.DID].source.Client.Transport = &published{answers: []answered{h.document(h.DID, h.DID)}}
	h.Token = token
	h.Want("POST", notify, notice(), 200, "", "")
	if len(n.all) != 1 || n.all[0].Issuer != h.DID {
		t.Errorf("got %+v", n.all)
	}
}

func TestNotifyManifestIsOffByDefault(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.Notices = &told{} })
	h.Want("POST", notify, notice(), 403, "Forbidden", "hold.registries or hold.owners")
	alone := newHold(t)
	alone.Want("POST", notify, notice(), 501, "MethodNotImplemented", "a hold inside a registry serves it")
}

// A registry that can't record says so, and keeps the reason to itself.
func TestNotifyManifestNotRecorded(t *testing.T) {
	t.Parallel()
	h, n, reg := listening(t)
	for fail, want := range map[error]answered{
		errors.New("/var/lib/secret is full"):                    {503, "ServiceUnavailable"},
		xrpc.NewError(http.StatusTeapot, "Teapot", "of its own"): {http.StatusTeapot, "Teapot"},
	} {
		n.fail = fail
		h.Token = reg.sign(h, nil)
		answer := h.Want("POST", notify, notice(), want.status, want.body, "")
		if strings.Contains(fmt.Sprint(answer), "secret") {
			t.Errorf("told the world %v", answer)
		}
	}
	if !strings.Contains(h.logged(), "/var/lib/secret is full") {
		t.Errorf("the log has no reason: %s", h.logged())
	}
}

// The caller's document is asked for rarely, whoever presents what.
func TestCallersKey(t *testing.T) {
	t.Parallel()
	h, _, reg := listening(t)
	good := func(want int, name string) {
		t.Helper()
		h.Token = reg.sign(h, nil)
		h.Want("POST", notify, notice(), want, name, "")
	}
	asked := func(want int) {
		t.Helper()
		if got := len(reg.published.asked); got != want {
			t.Errorf("asked %d times, want %d: %q", got, want, reg.published.asked)
		}
	}
	old := *reg
	good(200, "")
	good(200, "")
	asked(1)

	// Forged ones make it look once a minute.
	forger := newOther(h, ownerDID)
	for range 5 {
		h.Token = forger.sign(h, map[string]any{"iss": registryDID})
		h.Want("POST", notify, notice(), 401, "BadJwtSignature", "")
	}
	asked(1)
	h.advance(keyAgain)
	for range 5 {
		h.Token = forger.sign(h, map[string]any{"iss": registryDID})
		h.Want("POST", notify, notice(), 401, "BadJwtSignature", "")
	}
	asked(2)

	// A new key is found, and the old one is good no more.
	reg.key = forger.key
	h.advance(keyAgain)
	reg.publish(h)
	good(200, "")
	h.Token = old.sign(h, nil)
	h.Want("POST", notify, notice(), 401, "BadJwtSignature", "")
	asked(1)

	// After an hour it looks again, and again after a while if that fails.
	h.advance(keyKept)
	reg.publish(h, answered{}, answered{502, "<html>"}, answered{200, `{"id":"did:web:x.example.com"}`}, answered{200, `{"id":"` + registryDID + `"}`}, reg.document(h))
	for i, want := range []answered{{503, "ServiceUnavailable"}, {503, "ServiceUnavailable"}, {401, "BadJwtIss"}, {401, "BadJwtIss"}, {200, ""}} {
		good(want.status, want.body)
		if want.status != 200 {
			good(want.status, want.body)
		}
		asked(i + 1)
		h.advance(keyRetry)
	}
	if !strings.Contains(h.logged(), "no route") {
		t.Errorf("the log does not say why: %s", h.logged())
	}
}

// A DID host that is slow delays those who need its answer, and no others: not
// those whose token is of the key that is known, nor those who leave.
func TestSlowDocument(t *testing.T) {
	t.Parallel()
	h, _, reg := listening(t)
	h.Token = reg.sign(h, nil)
	h.Want("POST", notify, notice(), 200, "", "")
	h.advance(keyAgain)
	slow := &slowHost{asked: make(chan struct{}), release: make(chan struct{})}
	from := h.server.callers[registryDID]
	from.source.Client.Transport = slow
	waiting := make(chan error, 1)
	go func() {
		_, err := from.signingKey(t.Context(), h.clock(), keyAgain)
		waiting <- err
	}()
	<-slow.asked
	h.Token = reg.sign(h, nil)
	h.Want("POST", notify, notice(), 200, "", "")
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := from.signingKey(left, h.clock(), keyAgain); !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves gets %v", err)
	}
	close(slow.release)
	if err := <-waiting; err == nil || !strings.Contains(err.Error(), "slow at last") {
		t.Errorf("the answer came too early: %v", err)
	}
}

// slowHost answers one request, when it is let.
type slowHost struct{ asked, release chan struct{} }

func (s *slowHost) RoundTrip(r *http.Request) (*http.Response, error) {
	close(s.asked)
	select {
	case <-s.release:
		return nil, errors.New("slow at last")
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func TestInvalidCaller(t *testing.T) {
	t.Parallel()
	if _, err := newIssuers(Config{Owners: []string{"did:web:10.0.0.1"}}); err == nil || !strings.Contains(err.Error(), "did:web:10.0.0.1") {
		t.Errorf("got %v", err)
	}
}

// Tokens are forgotten when they end, and no sooner, however many there are.
func TestUsedTokens(t *testing.T) {
	t.Parallel()
	var u usedTokens
	now := time.Now()
	id := func(i int) (id [32]byte) {
		copy(id[:], fmt.Sprint(i))
		return id
	}
	for i := range maxUsedTokens {
		if got := u.use(id(i), now.Add(time.Minute+time.Duration(i%2)*time.Hour), now); got != usedNow {
			t.Fatalf("token %d: %v", i, got)
		}
	}
	if got := u.use(id(-1), now.Add(time.Minute), now); got != noRoom {
		t.Errorf("one too many: %v", got)
	}
	now = now.Add(time.Minute)
	if got := u.use(id(-1), now.Add(time.Minute), now); got != usedNow {
		t.Errorf("when half have ended: %v", got)
	}
	if n := len(u.ends); n != maxUsedTokens/2+1 {
		t.Errorf("%d are remembered", n)
	}
	for i := 1; i < maxUsedTokens; i += 2 {
		if got := u.use(id(i), now, now); got != usedBefore {
			t.Fatalf("token %d again: %v", i, got)
		}
	}
}
