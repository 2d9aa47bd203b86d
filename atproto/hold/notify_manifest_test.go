package hold

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/identity/identitytest"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const notify = lexicon.NSIDNotifyManifest

// recorder replaces the notifier.
type recorder struct {
	mu   sync.Mutex
	all  []Notification
	fail error
}

func (r *recorder) Notify(_ context.Context, n Notification) (lexicon.NotifyManifestOutput, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return lexicon.NotifyManifestOutput{}, r.fail
	}
	r.all = append(r.all, n)
	return lexicon.NotifyManifestOutput{Success: true, Operation: n.Operation, StatsUpdated: true}, nil
}

const (
	registryDID = "did:plc:z72i7hdynmk6r22z27h6tvur"
	ownerDID    = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	strangerDID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa" // not configured
)

// notifiable is a hold that accepts calls of registryDID and ownerDID; token signs
// service tokens of theirs and of strangerDID, for notify if no method is given.
func notifiable(t *testing.T, change ...func(*Config)) (h *testHold, n *recorder, token func(did string, method ...string) string) {
	t.Helper()
	keys := map[string]atcrypto.PrivateKeyExportable{}
	documents := map[string]identity.Document{}
	for _, did := range []string{registryDID, ownerDID, strangerDID} {
		key, err := atcrypto.GeneratePrivateKeyP256()
		if err != nil {
			t.Fatal(err)
		}
		id := identity.Identity{DID: did, Handle: identity.HandleInvalid, Hostname: "other.example.com", Key: key}
		if documents[did], err = id.Document(); err != nil {
			t.Fatal(err)
		}
		keys[did] = key
	}
	directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document, found := documents[strings.TrimPrefix(r.URL.Path, "/")]
		if !found {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(document)
	}))
	t.Cleanup(directory.Close)
	n = &recorder{}
	h = newHold(t, append([]func(*Config){func(cfg *Config) {
		cfg.Notifier, cfg.Registries, cfg.Owners, cfg.PLC = n, []string{registryDID}, []string{ownerDID}, directory.URL
	}}, change...)...)
	return h, n, func(did string, method ...string) string {
		t.Helper()
		token, err := auth.Sign(identity.Identity{DID: did, Key: keys[did]}, h.DID, cmp.Or(strings.Join(method, ""), notify), 0, h.clock())
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
}

// notification returns an input with replacements.
func notification(changes ...string) string {
	body := `{"repository":"oss/app","tag":"v1","userDid":"did:plc:abc","manifestDigest":"sha256:` + strings.Repeat("a", 64) + `","manifest":{"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + strings.Repeat("c", 64) + `","size":7},` +
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:` + strings.Repeat("b", 64) + `","size":10}]}}`
	return strings.NewReplacer(changes...).Replace(body)
}

func TestNotifyManifest(t *testing.T) {
	t.Parallel()
	h, n, token := notifiable(t)
	for _, tc := range []struct {
		name, from, body, key string
		status                int
		error, message        string
	}{
		{name: "no operation", body: notification(), status: 200},
		{name: "operation push", body: notification(`"tag"`, `"operation":"push","tag"`), status: 200},
		{name: "operation pull", body: notification(`"tag"`, `"operation":"pull","tag"`), status: 200},
		{name: "no tag", body: notification(`"tag":"v1",`, ""), status: 200},
		{name: "unknown members", body: notification(`"tag"`, `"userHandle":"a.test","tag"`, `"size":7`, `"size":7,"data":"eA=="`), status: 200},
		{name: "Idempotency-Key", body: notification(), key: "push 1 of 2", status: 200},
		{name: "image of the owner", from: ownerDID, body: notification("did:plc:abc", ownerDID), status: 200},
		{name: "image of another owner", from: ownerDID, body: notification(), status: 403, error: "UserMismatch", message: "its own images only, but userDid is did:plc:abc"},

		{name: "operation delete", body: notification(`"tag"`, `"operation":"delete","tag"`), status: 400, error: "InvalidOperation", message: "use push or pull"},
		{name: "no repository", body: notification(`"repository":"oss/app",`, ""), status: 400, error: "InvalidRequest", message: `missing required key "repository" at $`},
		{name: "repository with ..", body: notification("oss/app", "../app"), status: 400, error: "InvalidRequest", message: "invalid repository name at $.repository"},
		{name: "repository with capitals", body: notification("oss/app", "oss/App"), status: 400, error: "InvalidRequest", message: "at $.repository"},
		{name: "repository with a DID", body: notification("oss/app", "did:plc:abc/app"), status: 400, error: "InvalidRequest", message: "at $.repository"},
		{name: "private visibility", body: notification(`"tag":"v1"`, `"tag":"v1","visibility":"private"`), status: 200},
		{name: "visibility too long", body: notification(`"tag":"v1"`, `"tag":"v1","visibility":"`+strings.Repeat("x", 17)+`"`), status: 400, error: "InvalidRequest", message: "maximum 16"},
		{name: "visibility not a string", body: notification(`"tag":"v1"`, `"tag":"v1","visibility":true`), status: 400, error: "InvalidRequest", message: "visibility"},
		{name: "repository too long", body: notification("oss/app", strings.Repeat("a", 257)), status: 400, error: "InvalidRequest", message: "maximum 256"},
		{name: "member twice, once with capitals", body: notification(`"tag"`, `"Repository":"../app","tag"`), status: 200},
		{name: "member with capitals", body: notification(`"repository"`, `"Repository"`), status: 400, error: "InvalidRequest", message: `missing required key "repository"`},
		{name: "userDid twice, once with capitals", from: ownerDID, body: notification(`"userDid":"did:plc:abc"`, `"userDid":"did:plc:abc","UserDID":"`+ownerDID+`"`), status: 403, error: "UserMismatch"},
		{name: "integers written as fractions", body: notification(`"size":10`, `"size":10.0`, `"size":7`, `"size":0.7e1`), status: 200},
		{name: "fraction", body: notification(`"size":10`, `"size":10.5`), status: 400, error: "InvalidRequest", message: "layers[0].size"},
		{name: "invalid tag", body: notification(`"v1"`, `"v 1"`), status: 400, error: "InvalidRequest", message: "invalid tag at $.tag"},
		{name: "invalid DID", body: notification("did:plc:abc", "abc"), status: 400, error: "InvalidRequest", message: "$.userDid"},
		{name: "invalid digest", body: notification("sha256:aaa", "sha256:xaa"), status: 400, error: "InvalidRequest", message: "$.manifestDigest"},
		{name: "no manifest", body: notification(`"manifest":`, `"image":`), status: 400, error: "InvalidRequest", message: `"manifest"`},
		{name: "invalid JSON", body: "{", status: 400, error: "SyntaxError"},
		{name: "too large", body: notification(`"tag"`, `"x":"`+strings.Repeat("x", xrpc.MaxInput)+`","tag"`), status: 413, error: "PayloadTooLargeError"},
		{name: "Idempotency-Key too long", body: notification(), key: strings.Repeat("k", 129), status: 400, error: "InvalidRequest", message: "one value of 1 to 128"},
		{name: "Idempotency-Key not ASCII", body: notification(), key: "schlüssel", status: 400, error: "InvalidRequest", message: "printable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(n.all)
			h.Token = token(cmp.Or(tc.from, registryDID))
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
			if resp.StatusCode != tc.status || tc.error != "" && answer["error"] != tc.error || !strings.Contains(message, strings.ReplaceAll(tc.message, "%", h.DID)) {
				t.Errorf("got %d %s, want %d %s %q", resp.StatusCode, raw, tc.status, tc.error, tc.message)
			}
			if got := len(n.all) - before; (got == 1) != (tc.status == 200) {
				t.Fatalf("%d notifications", got)
			}
			if tc.status != 200 {
				return
			}
			last := n.all[before]
			if last.Key != tc.key || last.Token == "" || last.Repository != "oss/app" || len(last.Manifest.Layers) != 1 || answer["success"] != true {
				t.Errorf("got %+v, %s", last, raw)
			}
			if (last.Visibility == lexicon.VisibilityPrivate) != strings.Contains(tc.body, "visibility") {
				t.Errorf("got visibility %q", last.Visibility)
			}
			h.Want("POST", notify, tc.body, 401, "BadJwtReplay", "a new one for each call")
		})
	}
}

// What a manifest may contain is decided by the published schema: none of its members is
// required, sizes have no minimum, and members that the schema does not have may be
// anything.
func TestNotifyManifestSchema(t *testing.T) {
	t.Parallel()
	h, n, token := notifiable(t)
	text := func(length int) string { return strings.Repeat("x", length) }
	var (
		digest    = "sha256:" + strings.Repeat("b", 64)
		mediaType = "application/" + text(244) // 256 bytes
		platform  = `{"os":"` + text(64) + `","architecture":"` + text(64) + `"}`
		blob      = `{"digest":"` + digest + `","size":10}`
		layer     = `{"digest":"` + digest + `","size":10,"mediaType":"` + mediaType + `"}`
		child     = strings.Replace(layer, "{", `{"platform":`+platform+`,`, 1)
		unknown   = `"members":[{"a":1}],"annotations":"x","data":null`
	)
	for _, tc := range []struct{ name, manifest, message string }{
		{"empty", `{}`, ""},
		{"empty parts", `{"config":{},"subject":{},"layers":[{}],"manifests":[{"platform":{}}]}`, ""},
		{"empty lists", `{"layers":[],"manifests":[]}`, ""},
		{"image", `{"mediaType":"` + mediaType + `","config":` + blob + `,"layers":[` + layer + `]}`, ""},
		{"index", `{"mediaType":"` + mediaType + `","manifests":[` + child + `]}`, ""},
		{"artifact", `{"mediaType":"` + mediaType + `","config":` + blob + `,"layers":[` + layer + `],"subject":` + blob + `}`, ""},
		{"empty strings", `{"mediaType":"","layers":[{"digest":"","mediaType":""}],"manifests":[{"platform":{"os":"","architecture":""}}]}`, ""},
		{"digest of 128 bytes", `{"layers":[{"digest":"` + text(128) + `"}]}`, ""},
		{"invalid digests", `{"config":{"digest":"x"},"subject":{"digest":"x"},"layers":[{"digest":"x"}],"manifests":[{"digest":"x"}]}`, ""},
		{"negative sizes", `{"config":{"size":-1},"subject":{"size":-1},"layers":[{"size":-1}],"manifests":[{"size":-1}]}`, ""},
		{"largest sizes", `{"config":{"size":9007199254740991},"layers":[{"size":9007199254740991},{"size":9007199254740991}]}`, ""},
		{"unknown members", `{` + unknown + `,"config":{` + unknown + `},"subject":{` + unknown + `},"layers":[{` + unknown + `}],"manifests":[{` + unknown + `,"platform":{` + unknown + `}}]}`, ""},
		{"members of OCI manifests with other types", `{"artifactType":1,"config":{"mediaType":1},"subject":{"mediaType":[],"artifactType":{}},` +
			`"layers":[{"urls":"x"},{"urls":[1]},{"platform":1}],"manifests":[{"artifactType":1,"urls":{},"platform":{"variant":1,"os.version":1}}]}`, ""},

		{"not an object", `"x"`, "expected an object at $.manifest"},
		{"layers not a list", `{"layers":{}}`, "expected an array at $.manifest.layers"},
		{"layer not an object", `{"layers":["x"]}`, "expected an object at $.manifest.layers[0]"},
		{"size not a number", `{"layers":[{"size":"10"}]}`, "at $.manifest.layers[0].size"},
		{"media type not a string", `{"mediaType":1}`, "expected a string at $.manifest.mediaType"},
		{"media type of 257 bytes", `{"mediaType":"` + text(257) + `"}`, "maximum 256, got 257) at $.manifest.mediaType"},
		{"media type of a layer of 257 bytes", `{"layers":[{"mediaType":"` + text(257) + `"}]}`, "maximum 256, got 257) at $.manifest.layers[0].mediaType"},
		{"media type of a child of 257 bytes", `{"manifests":[{"mediaType":"` + text(257) + `"}]}`, "maximum 256, got 257) at $.manifest.manifests[0].mediaType"},
		{"digest of the config of 129 bytes", `{"config":{"digest":"` + text(129) + `"}}`, "maximum 128, got 129) at $.manifest.config.digest"},
		{"digest of the subject of 129 bytes", `{"subject":{"digest":"` + text(129) + `"}}`, "maximum 128, got 129) at $.manifest.subject.digest"},
		{"digest of a layer of 129 bytes", `{"layers":[{"digest":"` + text(129) + `"}]}`, "maximum 128, got 129) at $.manifest.layers[0].digest"},
		{"digest of a child of 129 bytes", `{"manifests":[{"digest":"` + text(129) + `"}]}`, "maximum 128, got 129) at $.manifest.manifests[0].digest"},
		{"os of 65 bytes", `{"manifests":[{"platform":{"os":"` + text(65) + `"}}]}`, "maximum 64, got 65) at $.manifest.manifests[0].platform.os"},
		{"architecture of 65 bytes", `{"manifests":[{"platform":{"architecture":"` + text(65) + `"}}]}`, "maximum 64, got 65) at $.manifest.manifests[0].platform.architecture"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, body := len(n.all), notification()
			body = body[:strings.Index(body, `"manifest":`)] + `"manifest":` + tc.manifest + "}"
			h.Token = token(registryDID)
			if tc.message != "" {
				h.Want("POST", notify, body, 400, "InvalidRequest", tc.message)
				return
			}
			if resp, raw := h.Do(h.Request("POST", "/xrpc/"+notify, body)); resp.StatusCode != 200 || len(n.all) != before+1 {
				t.Errorf("got %d %s, %d notifications", resp.StatusCode, raw, len(n.all)-before)
			}
		})
	}
}

func TestNotifyManifestNotAllowed(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.Notifier = &recorder{} })
	h.Want("POST", notify, notification(), 403, "Forbidden", "hold.registries or hold.owners")
	alone := newHold(t)
	alone.Want("POST", notify, notification(), 501, "MethodNotImplemented", "accepts no notifications")
}

// The reason why an event cannot be recorded is in the log, not in the response.
func TestNotifyManifestNotRecorded(t *testing.T) {
	t.Parallel()
	h, n, token := notifiable(t)
	for fail, want := range map[error]identitytest.Answer{
		errors.New("/var/lib/secret is full"):                    {Status: 503, Body: "ServiceUnavailable"},
		xrpc.NewError(http.StatusTeapot, "Teapot", "of its own"): {Status: http.StatusTeapot, Body: "Teapot"},
	} {
		n.fail = fail
		h.Token = token(registryDID)
		answer := h.Want("POST", notify, notification(), want.Status, want.Body, "")
		if strings.Contains(fmt.Sprint(answer), "secret") {
			t.Errorf("the response has the reason: %v", answer)
		}
	}
	if !strings.Contains(h.logged(), "/var/lib/secret is full") {
		t.Errorf("the log does not have the reason: %s", h.logged())
	}
}

func TestNotifyManifestRepeatsTheKey(t *testing.T) {
	t.Parallel()
	h, _, token := notifiable(t)
	for _, tc := range []struct {
		name, body, key, want string
		status                int
	}{
		{"applied", notification(), "push 1", "push 1", 200},
		{"no key", notification(), "", "", 200},
		{"invalid key", notification(), strings.Repeat("k", 129), "", 400},
		{"refused", `{"operation":"none"}`, "push 1", "push 1", 400},
		{"too large", notification(`"tag"`, `"x":"`+strings.Repeat("x", xrpc.MaxInput)+`","tag"`), "push 1", "push 1", 413},
		{"not authorized", notification(), "push 1", "", 401},
	} {
		if h.Token = token(registryDID); tc.status == 401 {
			h.Token = ""
		}
		r := h.Request("POST", "/xrpc/"+notify, tc.body)
		if tc.key != "" {
			r.Header.Set(keyHeader, tc.key)
		}
		resp, raw := h.Do(r)
		if got := resp.Header.Get(keyHeader); resp.StatusCode != tc.status || got != tc.want {
			t.Errorf("%s: got %d, key %q, %s, want %d, key %q", tc.name, resp.StatusCode, got, raw, tc.status, tc.want)
		}
	}
}
