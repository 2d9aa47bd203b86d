package middleware

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// Anonymous clients learn nothing of a private repository from anything that the registry
// serves outside of /v2/: the answers are those for a repository that does not exist.
func TestPrivateLikeMissing(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	_, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "registry.example.com", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := serveTidings(t, configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "registry.example.com"}, "public": []any{"oss/**"},
		"announce": map[string]any{"collect": "0s", "tags": []any{"*"}, "appview": "off", "anonymous_pushes": true, "publication": map[string]any{"name": "Images"}},
	})
	r.push("secret/app", "v1", r.image("secret/app", "s", v1.MediaTypeImageManifest))
	r.push("oss/app", "v1", r.image("oss/app", "b", v1.MediaTypeImageManifest))
	r.waitForPushes(1, func(p stats.Push) bool { return p.State == "done" })

	answer := func(method, path, name string, header ...string) string {
		a := r.do(method, path, nil, header...)
		a.header.Del("Date")
		return strings.ReplaceAll(fmt.Sprint(a.status, a.header, string(a.body)), name, "NAME")
	}
	for _, path := range []string{
		"/tidings/r/NAME", "/tidings/r/NAME/v1", "/tidings/r/NAME/feed.atom", "/tidings/api/v1/repositories/NAME", "/tidings/api/v1/repositories/NAME/daily",
		"/tidings/api/v1/pushes?repository=NAME", "/xrpc/com.atproto.repo.listRecords?repo=did:web:registry.example.com&collection=io.atcr.hold.layer&rkeyStart=NAME",
	} {
		at := func(name string) string { return strings.ReplaceAll(path, "NAME", name) }
		for _, method := range []string{"GET", "HEAD"} {
			for _, header := range [][]string{nil, {"If-None-Match", "*"}, {"Range", "bytes=0-9"}} {
				private := answer(method, at("secret/app"), "secret/app", header...)
				if missing := answer(method, at("secret/not"), "secret/not", header...); private != missing {
					t.Errorf("%s %s: private\n%s\nmissing\n%s", method, path, private, missing)
				}
			}
		}
	}
	for _, path := range []string{
		"/tidings/", "/tidings/feed.atom", "/tidings/api/v1/repositories", "/tidings/api/v1/pushes", "/tidings/api/v1/health",
		"/xrpc/com.atproto.sync.getRepo?did=did:web:registry.example.com", "/xrpc/com.atproto.sync.listBlobs?did=did:web:registry.example.com",
	} {
		if a := r.do("GET", path, nil); a.status != http.StatusOK || strings.Contains(string(a.body), "secret") {
			t.Errorf("%s: %d\n%.2000q", path, a.status, a.body)
		}
	}
	var blobs struct{ CIDs []string }
	a := r.do("GET", "/xrpc/com.atproto.sync.listBlobs?did=did:web:registry.example.com", nil)
	if err := json.Unmarshal(a.body, &blobs); err != nil || len(blobs.CIDs) != 2 {
		t.Errorf("want two blobs, the card of the public image and the icon of the publication: %s, %v", a.body, err)
	}
}
