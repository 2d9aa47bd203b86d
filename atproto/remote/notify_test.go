package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/remote/remotetest"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

func TestNotify(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	c := r.push(2)
	c.Input.Manifest.Annotations = map[string]string{"secret": "annotation"}
	c.Input.Manifest.Layers[0].Annotations = map[string]string{"secret": "annotation"}
	out := r.notify(c)
	if out.Operation != "push" || !out.StatsUpdated || out.LayersCreated == nil || *out.LayersCreated != 2 || out.PostCreated == nil || *out.PostCreated {
		t.Errorf("got %+v", out)
	}
	out = r.notify(r.pull())
	if out.Operation != "pull" || out.LayersCreated != nil {
		t.Errorf("pull: got %+v", out)
	}
	private := r.push(2)
	private.Key, private.Input.Visibility = "push 2", lexicon.VisibilityPrivate
	r.notify(private)
	if got := r.digests(); got != "0 1" || r.counts() != (remotetest.Counts{Pushes: 2, Pulls: 1}) {
		t.Errorf("got records %q, %+v", got, r.counts())
	}
	for _, call := range r.server.Calls() {
		if strings.Contains(string(call.Input), "annotation") {
			t.Errorf("annotations were sent: %s", call.Input)
		}
	}
	if n := r.server.Connections(); n != 2 { // one of them for the DID document
		t.Errorf("%d connections, want the calls to share one", n)
	}
	s := r.Status()
	if s.Hold != r.server.DID || s.Endpoint != r.server.URL || s.Keys != KeysIgnored || s.Error != nil || !s.Until.IsZero() || !s.Answered.Equal(r.Machine.Now()) {
		t.Errorf("got %+v", s)
	}
}

func TestAudience(t *testing.T) {
	t.Parallel()
	both := []string{"", "#atcr_hold"}
	for _, tc := range []struct {
		name                 string
		accepted, then, have []string
		want                 []string // audiences of the calls
	}{
		{"the service", both, both, nil, []string{"#atcr_hold", "#atcr_hold"}},
		{"bare", []string{""}, []string{""}, nil, []string{"#atcr_hold", "", ""}},
		{"bare first, then the service", []string{""}, []string{"#atcr_hold"}, nil, []string{"#atcr_hold", "", "", "#atcr_hold"}},
		{"the service first, then bare", []string{"#atcr_hold"}, []string{""}, nil, []string{"#atcr_hold", "#atcr_hold", ""}},
		{"a hold that is only a PDS", []string{"#atproto_pds"}, []string{""}, []string{"#atproto_pds"}, []string{"#atproto_pds", "#atproto_pds", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, remotetest.Config{Audiences: tc.accepted, Services: tc.have})
			r.notify(r.push(1))
			r.server.Accept(tc.then...)
			r.notify(r.push(1))
			var got []string
			for _, c := range r.server.Calls() {
				got = append(got, strings.TrimPrefix(c.Audience, r.server.DID))
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tc.want) {
				t.Errorf("got audiences %q, want %q", got, tc.want)
			}
			if s := r.Status(); s.Audience != r.server.DID+got[len(got)-1] {
				t.Errorf("got audience %q", s.Audience)
			}
		})
	}
}

// refusingPDS refuses audiences with a fragment, as an older PDS does.
type refusingPDS struct {
	Tokens
	err error // of all audiences; nil: only of those with a fragment
}

func (p refusingPDS) ServiceToken(ctx context.Context, audience, method string) (string, error) {
	if p.err != nil {
		return "", p.err
	}
	if strings.Contains(audience, "#") {
		return "", &pds.Error{Method: "com.atproto.server.getServiceAuth", Status: 400, Name: "InvalidRequest", Outcome: pds.Refused}
	}
	return p.Tokens.ServiceToken(ctx, audience, method)
}

func TestTokenErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	signed := r.cfg.Tokens
	r.cfg.Tokens = refusingPDS{Tokens: signed}
	r.restart()
	r.notify(r.push(1))
	later := r.Machine.Now().Add(time.Hour)
	for _, tc := range []struct {
		err  error
		want pds.Outcome
	}{
		{&pds.Error{Method: "m", Outcome: pds.Unknown, Err: errors.New("broken connection")}, pds.Suspended},
		{&pds.Error{Method: "m", Status: 400, Name: "InvalidRequest", Outcome: pds.Refused}, pds.Suspended},
		{&pds.Error{Method: "m", Status: 429, Outcome: pds.Limited, Until: later}, pds.Limited},
		{errors.New("no key"), pds.Suspended},
	} {
		r.cfg.Tokens = refusingPDS{err: tc.err}
		r.restart()
		_, err := r.Notify(t.Context(), r.push(1))
		var failed *pds.Error
		if !errors.As(err, &failed) || failed.Outcome != tc.want || Lost(err) || !strings.Contains(err.Error(), "service token: "+tc.err.Error()) {
			t.Errorf("%v: got %v", tc.err, err)
		}
		if tc.want == pds.Limited && !failed.Until.Equal(later) {
			t.Errorf("got until %s, want %s", failed.Until, later)
		}
	}
	if n := len(r.server.Calls()); n != 1 {
		t.Errorf("%d calls without a token", n-1)
	}
}

func xrpcError(name, message string) string {
	return fmt.Sprintf(`{"error":%q,"message":%q}`, name, message)
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	const html = "<!DOCTYPE html><h1>audience</h1>"
	retry := http.Header{"Retry-After": {"90"}}
	at := func(kind string, h http.Header) http.Header {
		h = h.Clone()
		if h == nil {
			h = http.Header{}
		}
		h.Set("Content-Type", kind)
		return h
	}
	for _, tc := range []struct {
		name    string
		status  int
		header  http.Header
		body    string
		outcome pds.Outcome
		error   string        // XRPC name
		pause   time.Duration // at least
	}{
		{"operation", 400, nil, xrpcError("InvalidOperation", "m"), pds.Refused, "InvalidOperation", 0},
		{"owner", 403, nil, xrpcError("UserMismatch", "m"), pds.Refused, "UserMismatch", 0},
		{"quota", 403, nil, xrpcError("QuotaExceeded", "m"), pds.Refused, "QuotaExceeded", 0},
		{"quota with another status", 507, nil, xrpcError("QuotaExceeded", "m"), pds.Refused, "QuotaExceeded", 0},
		{"invalid", 400, nil, xrpcError("InvalidRequest", "m"), pds.Refused, "InvalidRequest", 0},
		{"plain text", 400, at("text/plain; charset=utf-8", nil), "invalid digest\n", pds.Refused, "", 0},
		{"too large", 413, nil, xrpcError("PayloadTooLargeError", "m"), pds.TooLarge, "PayloadTooLargeError", 0},
		{"too large for a proxy", 413, at("text/html", nil), html, pds.TooLarge, "", 0},
		{"a proxy's page", 400, at("text/html", nil), html, pds.Suspended, "", minPause},
		{"not configured", 403, nil, xrpcError("Forbidden", "m"), pds.Suspended, "Forbidden", minPause},
		{"not configured, plain text", 403, at("text/plain", nil), "no access", pds.Suspended, "", minPause},
		{"no token", 401, nil, xrpcError("AuthMissing", "m"), pds.Suspended, "AuthMissing", minPause},
		{"signature", 400, nil, xrpcError("BadJwtSignature", "m"), pds.Suspended, "BadJwtSignature", minPause},
		{"audience", 401, nil, xrpcError("BadJwtAudience", "m"), pds.Suspended, "BadJwtAudience", minPause},
		{"repeated by a proxy", 401, nil, xrpcError("BadJwtReplay", "m"), pds.Unknown, "BadJwtReplay", minPause},
		{"no such method", 501, nil, xrpcError("MethodNotImplemented", "m"), pds.Suspended, "MethodNotImplemented", minPause},
		{"another program", 404, at("text/plain", nil), "404 page not found", pds.Suspended, "", minPause},
		{"redirect", 307, at("text/plain", http.Header{"Location": {"https://example.com"}}), "", pds.Suspended, "", minPause},
		{"limit", 429, nil, "", pds.Limited, "", limited},
		{"limit with Retry-After", 429, retry, xrpcError("RateLimitExceeded", "m"), pds.Limited, "RateLimitExceeded", 90 * time.Second},
		{"limit of years", 429, http.Header{"Retry-After": {"99999999"}}, "", pds.Limited, "", 24 * time.Hour},
		{"inside", 500, nil, xrpcError("InternalServerError", "m"), pds.Unknown, "InternalServerError", minPause},
		{"gateway", 502, at("text/html", nil), html, pds.Unknown, "", minPause},
		{"unavailable", 503, retry, xrpcError("ServiceUnavailable", "m"), pds.Unknown, "ServiceUnavailable", 90 * time.Second},
		{"timeout", 408, nil, "", pds.Unknown, "", minPause},
		{"page", 200, at("text/html", nil), html, pds.Unknown, "", minPause},
		{"no JSON", 200, at("application/json", nil), "{", pds.Unknown, "", minPause},
		{"no output", 200, at("application/json", nil), "{}", pds.Unknown, "", minPause},
		{"no content", 204, nil, "", pds.Unknown, "", minPause},
		{"long", 200, at("application/json", nil), strings.Repeat(" ", maxOutput) + `{"success":true}`, pds.Unknown, "", minPause},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, remotetest.Config{})
			r.notify(r.push(1)) // the audience is known
			r.server.Refuse(tc.status, tc.header, tc.body)
			before := len(r.server.Calls())
			_, err := r.Notify(t.Context(), r.push(1))
			var failed *pds.Error
			var refused *RefusedError
			if !errors.As(err, &failed) || failed.Outcome != tc.outcome || failed.Name != tc.error || failed.Status != tc.status {
				t.Fatalf("got %#v", err)
			}
			permanent := tc.outcome == pds.Refused || tc.outcome == pds.TooLarge
			if errors.As(err, &refused) != permanent || permanent && refused.Name != tc.error || Lost(err) != (tc.outcome == pds.Unknown) {
				t.Errorf("got %#v", err)
			}
			if strings.Contains(err.Error(), "<h1>") {
				t.Errorf("the error has a page: %v", err)
			}
			if n := len(r.server.Calls()) - before; n > 1 && tc.error != "BadJwtAudience" {
				t.Errorf("the call was sent %d times", n)
			}
			if permanent {
				r.server.Refuse(0, nil, "")
				r.notify(r.push(1)) // there is no pause
				return
			}
			want := tc.outcome
			if want == pds.Unknown {
				want = pds.Limited // that call is not sent
			}
			r.wantPause(want, tc.pause)
			if s := r.Status(); s.Error == nil || !s.Until.Equal(failed.Until) {
				t.Errorf("got status %+v", s)
			}
			r.pass(err)
			r.server.Refuse(0, nil, "")
			r.notify(r.push(1))
			if s := r.Status(); s.Error != nil || !s.Until.IsZero() {
				t.Errorf("got status %+v after a success", s)
			}
		})
	}
}

func TestPausesGrow(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.server.Refuse(403, nil, xrpcError("Forbidden", "m"))
	var last time.Duration
	for i := range 8 {
		_, err := r.Notify(t.Context(), r.push(1))
		var failed *pds.Error
		if !errors.As(err, &failed) {
			t.Fatal(err)
		}
		pause := failed.Until.Sub(r.Machine.Now())
		if pause <= last && last < maxPause || pause > maxPause {
			t.Errorf("pause %d: %s after %s", i, pause, last)
		}
		last = pause
		r.pass(err)
	}
	if last != maxPause {
		t.Errorf("the last pause is %s", last)
	}
}

func TestErrorsHaveNoSecrets(t *testing.T) {
	t.Parallel()
	for _, body := range []string{xrpcError("InvalidRequest", "bad token $TOKEN"), xrpcError("$TOKEN", "m"), "plain $TOKEN"} {
		r := newRig(t, remotetest.Config{})
		r.server.Refuse(400, http.Header{"Content-Type": {"text/plain"}}, body)
		_, err := r.Notify(t.Context(), r.push(1))
		if err == nil || strings.Contains(err.Error(), "eyJ") || !strings.Contains(err.Error(), "[secret]") {
			t.Errorf("%s: got %v", body, err)
		}
		if s := r.Status(); s.Error != nil && strings.Contains(s.Error.Error(), "eyJ") {
			t.Errorf("%s: got status %v", body, s.Error)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		r := newRig(t, remotetest.Config{})
		r.server.Refuse(status, http.Header{"Location": {other.URL}}, "")
		if failed := r.fail(r.push(1)); failed.Status != status || failed.Outcome != pds.Suspended {
			t.Errorf("%d: got %v", status, failed)
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	key := newRig(t, remotetest.Config{})
	gone := httptest.NewServer(http.NotFoundHandler())
	port := gone.URL[strings.LastIndexByte(gone.URL, ':')+1:]
	gone.Close()
	key.cfg.Hold = "did:web:localhost%3A" + port
	key.restart()
	_, err := key.Notify(t.Context(), key.push(1))
	if failed := key.pass(err); failed.Outcome != pds.Suspended || Lost(err) || !strings.Contains(err.Error(), "DID document") {
		t.Errorf("not resolved: got %v", err)
	}
}

// A call that was not sent is not lost, although the address was known.
func TestUnreachableAfterwards(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.notify(r.push(1))
	r.mu.Lock()
	r.at.endpoint.Host = "localhost:1" // nothing listens there
	r.mu.Unlock()
	r.at.client.CloseIdleConnections()
	_, err := r.Notify(t.Context(), r.pull())
	if failed := r.pass(err); failed.Outcome != pds.Suspended || failed.Status != 0 || Lost(err) {
		t.Errorf("got %v", err)
	}
}

// net/http repeats a POST with an Idempotency-Key by itself if a reused connection breaks
// before the answer. No hold may get a call twice without our knowledge.
func TestBrokenConnectionIsNotRetried(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.notify(r.push(1))
	connections, calls := r.server.Connections(), len(r.server.Calls())
	r.server.Start(faultproxy.Fault{Kind: faultproxy.Cut, Delivered: true, Method: lexicon.NSIDNotifyManifest})
	_, err := r.Notify(t.Context(), r.push(1))
	if !Lost(err) {
		t.Errorf("got %v", err)
	}
	if hits := r.server.End(); hits != 1 || len(r.server.Calls()) != calls+1 || r.server.Connections() != connections {
		t.Errorf("%d calls were cut, %d reached the hold, %d new connections", hits, len(r.server.Calls())-calls, r.server.Connections()-connections)
	}
}

func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.server.Start(faultproxy.Fault{Kind: faultproxy.Endless, Delivered: true, Method: lexicon.NSIDNotifyManifest})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := r.Notify(ctx, r.push(1))
	if !Lost(err) {
		t.Errorf("got %v", err)
	}
	if r.at.client.Timeout != callTime {
		t.Errorf("calls have no time limit")
	}
}

func TestInvalidConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	for _, tc := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Tokens = nil }, "tokens are required"},
		{func(c *Config) { c.Hold = "hold.example.com" }, "is not a DID"},
		{func(c *Config) { c.Hold = "did:key:zQ3shokFTS3brHcD" }, "unsupported method"},
		{func(c *Config) { c.Hold = "did:web:10.0.0.1" }, "is not the DID of an account"},
	} {
		cfg := r.cfg
		tc.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

func TestInput(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	long := "sha512:" + strings.Repeat("a", 128)
	for _, tc := range []struct {
		name   string
		change func(*Call)
		want   func(lexicon.NotifyManifestInput) bool
		error  string
	}{
		{"as it is", func(*Call) {}, func(in lexicon.NotifyManifestInput) bool {
			return len(in.Manifest.Layers) == 2 && in.Manifest.Config.Digest == digest("c") && in.Tag == "v1"
		}, ""},
		{"large annotations", func(c *Call) { c.Input.Manifest.Annotations = map[string]string{"a": strings.Repeat("x", maxInput)} }, func(in lexicon.NotifyManifestInput) bool {
			return len(in.Manifest.Layers) == 2 && in.Manifest.Config.MediaType != ""
		}, ""},
		{"large URLs", func(c *Call) { c.Input.Manifest.Layers[0].URLs = []string{strings.Repeat("x", maxInput)} }, func(in lexicon.NotifyManifestInput) bool {
			return len(in.Manifest.Layers) == 2 && in.Manifest.Layers[0].URLs == nil && in.Manifest.Config.Size == 7
		}, ""},
		{"too many children", func(c *Call) {
			for i := range 10_000 {
				c.Input.Manifest.Manifests = append(c.Input.Manifest.Manifests, lexicon.Descriptor{Digest: digest(fmt.Sprint(i)), MediaType: strings.Repeat("m", 100)})
			}
		}, func(in lexicon.NotifyManifestInput) bool {
			return in.Manifest.Manifests == nil && len(in.Manifest.Layers) == 2
		}, ""},
		{"too many layers", func(c *Call) { c.Input.Manifest.Layers = layersOf(10_000) }, nil, "larger than 1000000 bytes"},
		{"digests that exceed the schema", func(c *Call) {
			c.Input.Manifest.Layers[0].Digest, c.Input.Manifest.Config.Digest = long, long
		}, func(in lexicon.NotifyManifestInput) bool {
			return len(in.Manifest.Layers) == 1 && in.Manifest.Config == nil
		}, ""},
		{"the manifest's digest exceeds the schema", func(c *Call) { c.Input.ManifestDigest = long }, nil, "manifestDigest"},
		{"the owner is not a DID", func(c *Call) { c.Input.UserDID = "alice" }, nil, "userDid"},
		{"no key", func(c *Call) { c.Key = "" }, nil, "invalid key"},
		{"key that is no header", func(c *Call) { c.Key = "a\nb" }, nil, "invalid key"},
	} {
		c := r.push(2)
		tc.change(&c)
		given, _ := json.Marshal(c)
		_, err := r.Notify(t.Context(), c)
		if after, _ := json.Marshal(c); string(after) != string(given) {
			t.Errorf("%s: the call was changed", tc.name)
		}
		if tc.error != "" {
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tc.error) || !strings.Contains(refused.Message, tc.error) {
				t.Errorf("%s: got %v, want %q", tc.name, err, tc.error)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		calls := r.server.Calls()
		var in lexicon.NotifyManifestInput
		if err := json.Unmarshal(calls[len(calls)-1].Input, &in); err != nil || !tc.want(in) {
			t.Errorf("%s: sent %.500s, %v", tc.name, calls[len(calls)-1].Input, err)
		}
	}
}

// An error about the token says that the clocks differ, if they do.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	for ahead, want := range map[time.Duration]string{
		5 * time.Minute:  "the clocks of this machine and the hold differ by",
		-5 * time.Minute: "the clocks of this machine and the hold differ by",
		0:                "",
	} {
		r := newRig(t, remotetest.Config{Ahead: ahead})
		if ahead == 0 {
			r.server.Refuse(401, nil, xrpcError("AuthMissing", "m"))
		}
		failed := r.fail(r.push(1))
		if failed.Outcome != pds.Suspended || !strings.Contains(failed.Error(), want) || strings.Contains(failed.Error(), "clocks") != (want != "") {
			t.Errorf("%s: got %v, want %q", ahead, failed, want)
		}
	}
}

// A caller that goes away before its call is sent pauses nothing.
func TestCanceled(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 {
		_, err := r.Notify(ctx, r.push(1))
		if !errors.Is(err, context.Canceled) || Lost(err) {
			t.Errorf("got %v", err)
		}
		r.notify(r.push(1))
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.notify(r.push(1))
	for _, status := range []int{403, 429, 500} {
		r.server.Refuse(status, nil, "")
		r.fail(r.push(1))
	}
	r.server.Refuse(403, nil, xrpcError("QuotaExceeded", "m"))
	r.fail(r.push(1))
	registry := prometheus.NewPedanticRegistry()
	for _, c := range r.cfg.Metrics.Collectors() {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, outcome := range []string{"applied", "suspended", "limited", "lost", "refused"} {
		if got := testutil.ToFloat64(r.cfg.Metrics.calls.WithLabelValues(outcome)); got != 1 {
			t.Errorf("%s: got %v calls, want 1", outcome, got)
		}
	}
	if families, err := registry.Gather(); err != nil || len(families) != 2 {
		t.Errorf("got %v, %v", families, err)
	}
	var none *Metrics
	none.called(nil, 0)
}
