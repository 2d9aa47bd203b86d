package middleware

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// An outside is an account on another host that calls the hold of a registry.
type outside struct {
	*testRegistry
	id identity.Identity
}

// newOutside serves a registry with a quota of 1,000 bytes and the account, which may report
// its own images.
func newOutside(t *testing.T) *outside {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	o := &outside{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		document, err := o.id.Document()
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(document)
	}))
	t.Cleanup(web.Close)
	port := web.URL[strings.LastIndexByte(web.URL, ':')+1:]
	o.id = identity.Identity{DID: "did:web:localhost%3A" + port, Handle: identity.HandleInvalid, Hostname: "localhost:" + port, Key: key}

	data := t.TempDir()
	if _, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	o.testRegistry = serveTidings(t, configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "localhost:5000", "owners": []any{o.id.DID}},
		"quota": map[string]any{"tiers": map[string]any{"small": map[string]any{"limit": "1kB"}}, "default": "small"},
	})
	return o
}

// call calls a procedure, or with an empty body a query, with a new token.
func (o *outside) call(method, body string) answer {
	o.t.Helper()
	token, err := auth.Sign(o.id, "did:web:localhost%3A5000", method, 0, time.Now())
	if err != nil {
		o.t.Fatal(err)
	}
	verb := "POST"
	if body == "" {
		verb = "GET"
	}
	return o.do(verb, "/xrpc/"+method, []byte(body), "Authorization", "Bearer "+token, "Content-Type", "application/json")
}

// pushed reports an image of one layer.
func (o *outside) pushed(name string, size int) answer {
	o.t.Helper()
	return o.call(lexicon.NSIDNotifyManifest, fmt.Sprintf(
		`{"repository":"oss/app","tag":"v1","userDid":%q,"manifestDigest":%q,"manifest":{"layers":[{"digest":%q,"size":%d}]}}`,
		o.id.DID, digest.FromString("manifest "+name), digest.FromString("layer "+name), size))
}

// quota returns the answer of getQuota, which is valid by the published schema.
func (o *outside) quota() string {
	o.t.Helper()
	a := o.do("GET", "/xrpc/"+lexicon.NSIDGetQuota+"?userDid="+strings.ReplaceAll(o.id.DID, "%", "%25"), nil)
	if err := lexicon.Output(lexicon.NSIDGetQuota, a.body); err != nil || a.status != http.StatusOK {
		o.t.Errorf("getQuota: %d %s, %v", a.status, a.body, err)
	}
	return strings.TrimSpace(string(a.body))
}

func (o *outside) want(what string, a answer, status int, body string) {
	o.t.Helper()
	if got := strings.TrimSpace(string(a.body)); a.status != status || got != body {
		o.t.Errorf("%s: got %d %s, want %d %s", what, a.status, got, status, body)
	}
}

// A notification that does not fit is refused with the published error and the numbers, and
// is recorded once the account has had its data deleted. Nothing of a refused one is kept.
func TestQuotaOfNotifications(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	usage := func(blobs, bytes int) string {
		return fmt.Sprintf(`{"userDid":%q,"uniqueBlobs":%d,"totalSize":%d,"limit":1000,"tier":"small"}`, o.id.DID, blobs, bytes)
	}
	const recorded = `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":1,"postCreated":false}`
	o.want("the first push", o.pushed("a", 900), 200, recorded)
	if got := o.quota(); got != usage(1, 900) {
		t.Errorf("getQuota: %s", got)
	}
	exceeded := func(used, push int) string {
		return fmt.Sprintf(`{"error":"QuotaExceeded","message":"quota exceeded: %s uses %d of 1000 bytes (tier small), and this push adds %d bytes; `+
			`delete images, or ask the registry's operator for a larger quota"}`, o.id.DID, used, push)
	}
	o.want("one byte too many", o.pushed("b", 101), 403, exceeded(900, 101))
	o.want("the first push again", o.pushed("a", 900), 200, strings.Replace(recorded, `"layersCreated":1`, `"layersCreated":0`, 1))
	o.want("a push that fits", o.pushed("c", 100), 200, recorded)
	o.want("above the limit", o.pushed("b", 1), 403, exceeded(1000, 1))
	if got := o.quota(); got != usage(2, 1000) {
		t.Errorf("getQuota: %s", got)
	}

	a := o.call(lexicon.NSIDDeleteUserData, `{}`)
	if err := lexicon.Output(lexicon.NSIDDeleteUserData, a.body); err != nil {
		t.Error(err)
	}
	o.want("deleteUserData", a, 200, `{"success":true,"crewDeleted":false,"layersDeleted":2,"statsDeleted":0}`)
	o.want("a push of the whole limit", o.pushed("b", 1000), 200, recorded)
	if got := o.quota(); got != usage(1, 1000) {
		t.Errorf("getQuota: %s", got)
	}
	var export struct {
		LayerRecords []struct {
			Digest string
			Size   int
		}
	}
	if a := o.call(lexicon.NSIDExportUserData, ""); json.Unmarshal(a.body, &export) != nil || len(export.LayerRecords) != 1 || export.LayerRecords[0].Size != 1000 {
		t.Errorf("exportUserData: %d %s", a.status, a.body)
	}
	o.want("deleteUserData again", o.call(lexicon.NSIDDeleteUserData, `{}`), 200, `{"success":true,"crewDeleted":false,"layersDeleted":1,"statsDeleted":0}`)
}
