package hold

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
)

// A pull's token is the puller's: only pushes are compared with their owner, with each
// setting of who may report pulls.
func TestWhoMayReport(t *testing.T) {
	t.Parallel()
	const other = "did:plc:abc"
	for _, setting := range []auth.Pulls{"", auth.PullsTrusted, auth.PullsAnyone} {
		h, n, token := notifiable(t, func(cfg *Config) { cfg.Pulls = setting })
		stranger := 403
		if setting == auth.PullsAnyone {
			stranger = 200
		}
		for _, tc := range []struct {
			from, operation, owner string
			status                 int
			error                  string
		}{
			{registryDID, "push", other, 200, ""},
			{registryDID, "pull", other, 200, ""},
			{ownerDID, "push", ownerDID, 200, ""},
			{ownerDID, "push", other, 403, "UserMismatch"},
			{ownerDID, "", other, 403, "UserMismatch"}, // a push by default
			{ownerDID, "pull", ownerDID, 200, ""},
			{ownerDID, "pull", other, 200, ""},
			{strangerDID, "push", strangerDID, 403, "Forbidden"},
			{strangerDID, "push", other, 403, "Forbidden"},
			{strangerDID, "", strangerDID, 403, "Forbidden"},
			{strangerDID, "pull", other, stranger, "Forbidden"},
			{strangerDID, "pull", ownerDID, stranger, "Forbidden"},
			{strangerDID, "pull", strangerDID, stranger, "Forbidden"},
		} {
			body := notification("did:plc:abc", tc.owner)
			if tc.operation != "" {
				body = notification(`"tag"`, `"operation":"`+tc.operation+`","tag"`, "did:plc:abc", tc.owner)
			}
			before := len(n.all)
			h.Token = token(tc.from)
			status, answer := h.Call("POST", notify, body)
			if status != tc.status || status != 200 && answer["error"] != tc.error {
				t.Errorf("pulls %q: %s of %s by %s: got %d %v, want %d %s", setting, tc.operation, tc.owner, tc.from, status, answer, tc.status, tc.error)
			}
			if status != 200 {
				continue
			}
			if got := n.all[before]; got.Issuer != tc.from || got.UserDID != tc.owner || got.Unlisted != (tc.from == strangerDID) {
				t.Errorf("got %+v", got)
			}
		}
	}
}

// Invalid bodies of an unlisted account have the same errors as those of others, and are
// smaller.
func TestUnlistedBodies(t *testing.T) {
	t.Parallel()
	h, n, token := notifiable(t, func(cfg *Config) { cfg.Pulls = auth.PullsAnyone })
	pull := func(changes ...string) string {
		return notification(append([]string{`"manifestDigest"`, `"operation":"pull","manifestDigest"`}, changes...)...)
	}
	for _, tc := range []struct {
		name, body, key string
		status          int
		error           string
	}{
		{"valid", pull(), "", 200, ""},
		{"with a key", pull(), "k", 200, ""},
		{"of 256 KiB", pull(`"tag"`, `"x":"`+strings.Repeat("x", 255<<10)+`","tag"`), "", 200, ""},
		{"too large", pull(`"tag"`, `"x":"`+strings.Repeat("x", 256<<10)+`","tag"`), "", 413, "PayloadTooLargeError"},
		{"empty", "", "", 400, "InvalidRequest"},
		{"invalid JSON", "{", "", 400, "SyntaxError"},
		{"a list", "[]", "", 400, "InvalidRequest"},
		{"operation delete", strings.Replace(pull(), `"pull"`, `"delete"`, 1), "", 400, "InvalidOperation"},
		{"operation in capitals", strings.Replace(pull(), `"pull"`, `"PULL"`, 1), "", 400, "InvalidOperation"},
		{"no repository", pull(`"repository":"oss/app",`, ""), "", 400, "InvalidRequest"},
		{"private name", pull("oss/app", "private:oss/app"), "", 400, "InvalidRequest"},
		{"repository of a DID", pull("oss/app", "did:plc:abc/app"), "", 400, "InvalidRequest"},
		{"invalid tag", pull(`"v1"`, `"../v1"`), "", 400, "InvalidRequest"},
		{"invalid DID", pull("did:plc:abc", "abc"), "", 400, "InvalidRequest"},
		{"no userDid", pull(`"userDid":"did:plc:abc",`, ""), "", 400, "InvalidRequest"},
		{"invalid digest", pull("sha256:aaa", "sha256:xaa"), "", 400, "InvalidRequest"},
		{"no manifest", pull(`"manifest":`, `"image":`), "", 400, "InvalidRequest"},
		{"invalid key", pull(), strings.Repeat("k", 129), 400, "InvalidRequest"},
	} {
		before := len(n.all)
		h.Token = token(strangerDID)
		r := h.Request("POST", "/xrpc/"+notify, tc.body)
		if tc.key != "" {
			r.Header.Set("Idempotency-Key", tc.key)
		}
		resp, raw := h.Do(r)
		if resp.StatusCode != tc.status || !strings.Contains(string(raw), tc.error) {
			t.Errorf("%s: got %d %.200s, want %d %s", tc.name, resp.StatusCode, raw, tc.status, tc.error)
		}
		if got := len(n.all) - before; (got == 1) != (tc.status == 200) {
			t.Errorf("%s: %d notifications", tc.name, got)
		}
	}
}

// A flood of valid tokens of one issuer, and of tokens of invented issuers, is answered 429
// and does not keep a configured registry from reporting.
func TestFloodOfReports(t *testing.T) {
	t.Parallel()
	metrics := NewMetrics()
	h, _, token := notifiable(t, func(cfg *Config) {
		cfg.Pulls, cfg.Network = auth.PullsAnyone, nil
		network, err := NewNetwork(NetworkConfig{Identity: cfg.Identity, Repo: cfg.Repo, Metrics: metrics, Logger: cfg.Logger})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Network = network
	})
	body := notification(`"tag"`, `"operation":"pull","tag"`)
	send := func(bearer string) *http.Response {
		h.Token = bearer
		resp, _ := h.Do(h.Request("POST", "/xrpc/"+notify, body))
		if resp.StatusCode == 429 {
			if wait, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || wait < 1 {
				t.Fatalf("429 with Retry-After %q", resp.Header.Get("Retry-After"))
			}
		}
		return resp
	}
	statuses := map[int]int{}
	for range 100 {
		statuses[send(token(strangerDID)).StatusCode]++
		if resp := send(token(registryDID)); resp.StatusCode != 200 {
			t.Fatalf("the registry: got %s", resp.Status)
		}
	}
	if want := (map[int]int{200: 60, 429: 40}); fmt.Sprint(statuses) != fmt.Sprint(want) {
		t.Errorf("one issuer: got %v, want %v", statuses, want)
	}
	clear(statuses)
	var invented atomic.Int64
	for range 100 {
		did := fmt.Sprintf("did:plc:%s", strings.NewReplacer("0", "a", "1", "b").Replace(fmt.Sprintf("%024o", 8+invented.Add(1))))
		forged, err := auth.Sign(identity.Identity{DID: did, Key: h.server.id.Key}, h.DID, notify, 0, h.clock())
		if err != nil {
			t.Fatal(err)
		}
		statuses[send(forged).StatusCode]++
		if resp := send(token(registryDID)); resp.StatusCode != 200 {
			t.Fatalf("the registry: got %s", resp.Status)
		}
	}
	// One of the 60 fetches of the client was for strangerDID.
	if want := (map[int]int{429: 41, 503: 59}); fmt.Sprint(statuses) != fmt.Sprint(want) {
		t.Errorf("invented issuers: got %v, want %v", statuses, want)
	}
	if log := h.logged(); strings.Contains(log, "request failed") || strings.Contains(log, "did:plc:a") {
		t.Errorf("strangers fill the log:\n%.2000s", log)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.Collectors()...)
	const want = `# HELP tidings_notify_calls_total Calls of other accounts with a service token: accepted, unauthorized (401), forbidden (403), limited (429), invalid (other 4xx), failed (5xx).
# TYPE tidings_notify_calls_total counter
tidings_notify_calls_total{outcome="accepted"} 260
tidings_notify_calls_total{outcome="failed"} 59
tidings_notify_calls_total{outcome="forbidden"} 0
tidings_notify_calls_total{outcome="invalid"} 0
tidings_notify_calls_total{outcome="limited"} 81
tidings_notify_calls_total{outcome="unauthorized"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "tidings_notify_calls_total"); err != nil {
		t.Error(err)
	}
	h.Want("GET", "_health", "", 200, "", "")
}

// The audiences of the configuration are accepted.
func TestConfiguredAudience(t *testing.T) {
	t.Parallel()
	const old = "did:web:old.example.com#atcr_hold"
	for _, configured := range []bool{false, true} {
		h, _, token := notifiable(t, func(cfg *Config) {
			if configured {
				cfg.Audiences = []string{old}
			}
		})
		own := h.DID
		for aud, accepted := range map[string]bool{own: true, own + "#atcr_hold": true, own + "#atproto_pds": true, old: configured, "did:web:old.example.com": false} {
			h.DID = aud // token signs for it
			h.Token = token(registryDID)
			h.DID = own
			if status, answer := h.Call("POST", notify, notification()); (status == 200) != accepted || status != 200 && answer["error"] != "BadJwtAudience" {
				t.Errorf("configured %v, %s: got %d %v", configured, aud, status, answer)
			}
		}
	}
}
