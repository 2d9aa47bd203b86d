package middleware

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/notifier/stats"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// A push that exceeds the quota gets the registry's 403 with the numbers, and nothing is
// stored.
func TestQuotaOfPush(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	_, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := serveTidings(t, configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "localhost:5000"},
		"quota": map[string]any{"tiers": map[string]any{"small": map[string]any{"limit": "1kB"}}, "default": "small"},
	})
	image := func(size int, c string) manifest {
		config, layer := r.blob("oss/app", []byte(`{}`)), r.blob("oss/app", []byte(strings.Repeat(c, size)))
		config.MediaType = v1.MediaTypeImageConfig
		return r.manifest("", v1.MediaTypeImageManifest, map[string]any{"config": config, "layers": []v1.Descriptor{layer}})
	}
	first, second := image(900, "a"), image(101, "b")
	if a := r.push("oss/app", "v1", first); a.status != http.StatusCreated {
		t.Fatalf("the first push: %d %s", a.status, a.body)
	}
	var refused answer
	for end := time.Now().Add(10 * time.Second); refused.status != http.StatusForbidden && time.Now().Before(end); {
		if refused = r.push("oss/app", fmt.Sprint("large", time.Now().UnixNano()), image(1001, "c")); refused.status == http.StatusCreated {
			time.Sleep(5 * time.Millisecond) // the pending events are not read yet
		}
	}
	refused = r.push("oss/app", "v2", second)
	var body struct {
		Errors []struct {
			Code, Message string
			Detail        map[string]int64
		}
	}
	if err := json.Unmarshal(refused.body, &body); err != nil || refused.status != http.StatusForbidden || len(body.Errors) != 1 {
		t.Fatalf("got %d %s, %v", refused.status, refused.body, err)
	}
	e := body.Errors[0]
	if e.Code != "DENIED" || e.Detail["limit"] != 1000 || e.Detail["push"] != 101 || !strings.Contains(e.Message, "this push adds 101 bytes") {
		t.Errorf("got %+v", e)
	}
	if a := r.do("GET", "/v2/oss/app/manifests/v2", nil); a.status != http.StatusNotFound {
		t.Errorf("the refused manifest: %d", a.status)
	}
	for query, want := range map[string]string{
		"userDid=did:web:localhost%253A5000": `"limit":1000,"tier":"small"}`,
		"userDid=did:plc:unknown":            `{"userDid":"did:plc:unknown","uniqueBlobs":0,"totalSize":0,"limit":1000,"tier":"small"}`,
		"userDid=alice":                      `"error":"InvalidUserDid"`,
		"":                                   `"error":"InvalidRequest"`,
	} {
		if a := r.do("GET", "/xrpc/io.atcr.hold.getQuota?"+query, nil); !strings.Contains(string(a.body), want) {
			t.Errorf("%s: got %d %s, want %s", query, a.status, a.body, want)
		}
	}
	if a := r.push("oss/app", "v1.0", first); a.status != http.StatusCreated {
		t.Errorf("another tag: %d %s", a.status, a.body)
	}
}

// The usage of a stopped registry is listed, and a recount finds no difference.
func TestUsageOffline(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if _, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	r := serveTidings(t, configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "localhost:5000"},
		"quota": map[string]any{"tiers": map[string]any{"small": map[string]any{"limit": "1kB"}}, "default": "small"},
	})
	r.push("oss/app", "v1", r.image("oss/app", "a", v1.MediaTypeImageManifest))
	r.waitForPushes(1, func(p stats.Push) bool { return p.State == "done" })
	if err := r.handler.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []OwnerUsage
	if err := Usage(r.config, "", func(u OwnerUsage) error { got = append(got, u); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Owner != "did:web:localhost%3A5000" || got[0].Total != (usage.Total{Blobs: 1, Bytes: 10}) || *got[0].Limit != 1000 || got[0].Tier != "small" {
		t.Errorf("got %+v", got)
	}
	err := RecountUsage(t.Context(), r.config, false, io.Discard, nil, func(d usage.Difference) error {
		t.Errorf("difference: %s", d)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
