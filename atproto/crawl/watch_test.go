package crawl

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const account = "did:web:hold.example.com"

// statusRelay is a relay that has commits of an account.
type statusRelay struct {
	mu        sync.Mutex
	rev       string            // of the last commit that it has
	without   map[string]bool   // methods that it does not support
	responses map[string]string // instead of its own, by method: a JSON object, or the name of an error
	down      bool
	crawls    int // requests to crawl
	queries   int
}

func (c *statusRelay) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	method := req.URL.Path[strings.LastIndexByte(req.URL.Path, '.')+1:]
	if c.down {
		return nil, errors.New("no route")
	}
	respond := func(status int, body any) (*http.Response, error) {
		text, _ := json.Marshal(body)
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(text)))}, nil
	}
	if method == "requestCrawl" {
		c.crawls++
		return respond(200, nil)
	}
	c.queries++
	if c.without[method] {
		return respond(404, map[string]string{"error": "MethodNotImplemented"})
	}
	if text := c.responses[method]; strings.HasPrefix(text, "{") {
		return respond(200, json.RawMessage(text))
	} else if text != "" {
		return respond(400, map[string]string{"error": text})
	}
	switch method {
	case "getRepoStatus":
		return respond(200, map[string]any{"did": account, "active": true, "rev": c.rev})
	case "getLatestCommit":
		return respond(200, map[string]any{"rev": c.rev})
	default:
		return respond(200, map[string]any{"status": "active"})
	}
}

// hold is an account that commits.
type hold struct {
	mu  sync.Mutex
	rev string
}

func (h *hold) head() (did, rev string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return account, h.rev
}

func (h *hold) commit() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rev = syntax.NewTIDFromTime(time.Now(), 0).String()
	return h.rev
}

// withRelay runs a test in a synctest bubble with a Crawler, a hold, and one relay that
// has its first commit.
func withRelay(t *testing.T, test func(*Crawler, *hold, *statusRelay, *int)) {
	synctest.Test(t, func(t *testing.T) {
		h, r, introduced := &hold{}, &statusRelay{without: map[string]bool{}, responses: map[string]string{}}, 0
		r.rev = h.commit()
		c, err := New(Config{
			Hostname: "hold.example.com", Relays: []string{"https://relay.example.com"}, Log: newLog(), Commit: h.head, Metrics: NewMetrics(),
			Introduce: func(context.Context) error { introduced++; return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		c.relays[0].client.Transport = r
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(10 * time.Second) // until the relay was requested to crawl
		test(c, h, r, &introduced)
		cancel()
		<-done
	})
}

// set changes the relay.
func (c *statusRelay) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func TestRelayStates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*statusRelay)
		state  State
		reason string // a part of it
	}{
		"current":               {func(*statusRelay) {}, StateCurrent, ""},
		"without getRepoStatus": {func(r *statusRelay) { r.without["getRepoStatus"] = true }, StateCurrent, ""},
		"without getHostStatus": {func(r *statusRelay) { r.without["getHostStatus"] = true }, StateCurrent, ""},
		"without both methods":  {func(r *statusRelay) { r.without["getRepoStatus"], r.without["getLatestCommit"] = true, true }, StateCurrent, ""},
		"status without rev":    {func(r *statusRelay) { r.responses["getRepoStatus"] = `{"active":true}` }, StateCurrent, ""},
		"unknown":               {func(r *statusRelay) { r.responses["getRepoStatus"] = "RepoNotFound" }, StateUnknown, "does not know"},
		"unknown commit": {func(r *statusRelay) {
			r.without["getRepoStatus"], r.responses["getLatestCommit"] = true, "RepoNotFound"
		}, StateUnknown, "does not know"},
		"not synchronized": {func(r *statusRelay) {
			r.without["getRepoStatus"], r.responses["getLatestCommit"] = true, "RepoNotSynchronized"
		}, StateUnknown, "does not know"},
		"taken down": {func(r *statusRelay) {
			r.without["getRepoStatus"], r.responses["getLatestCommit"] = true, "RepoTakendown"
		}, StateInactive, "takendown"},
		"inactive":                {func(r *statusRelay) { r.responses["getRepoStatus"] = `{"active":false,"status":"deactivated"}` }, StateInactive, "deactivated"},
		"inactive without status": {func(r *statusRelay) { r.responses["getRepoStatus"] = `{"active":false}` }, StateInactive, "inactive"},
		"current, host banned":    {func(r *statusRelay) { r.responses["getHostStatus"] = `{"status":"banned"}` }, StateCurrent, ""},
		"unreachable":             {func(r *statusRelay) { r.down = true }, StateUnreachable, "no route"},
		"server error":            {func(r *statusRelay) { r.responses["getRepoStatus"] = "InternalServerError" }, StateUnreachable, "InternalServerError"},
		"invalid response":        {func(r *statusRelay) { r.responses["getRepoStatus"] = `{"active":"x\u0000y"}` }, StateUnreachable, "invalid answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withRelay(t, func(crawler *Crawler, _ *hold, r *statusRelay, _ *int) {
				r.set(func() { c.change(r) })
				time.Sleep(10 * time.Minute)
				got := crawler.Relays()[0]
				if got.Relay != "relay.example.com" || got.State != c.state || !strings.Contains(got.Reason, c.reason) {
					t.Errorf("got %+v, want %s with %q", got, c.state, c.reason)
				}
			})
		})
	}
}

// A relay that stops reading is reported as lagging and requested to crawl once, and is
// current again when it has read all commits.
func TestRelayLags(t *testing.T) {
	t.Parallel()
	withRelay(t, func(c *Crawler, h *hold, r *statusRelay, introduced *int) {
		time.Sleep(time.Hour)
		if got := c.Relays()[0]; got.State != StateCurrent || got.Lag != 0 {
			t.Fatalf("got %+v", got)
		}
		if r.queries > 15 { // two every 10 to 12 minutes
			t.Errorf("%d queries in an hour, want at most 15", r.queries)
		}
		before := r.crawls
		r.set(func() { r.responses["getHostStatus"] = `{"status":"throttled"}` })
		h.commit()
		missing := time.Now()
		for range 60 {
			time.Sleep(time.Minute)
			h.commit()
		}
		got := c.Relays()[0]
		if got.State != StateLagging || !strings.Contains(got.Reason, "throttled") {
			t.Fatalf("got %+v", got)
		}
		if age := time.Since(missing); got.Lag > age || got.Lag < age-30*time.Minute {
			t.Errorf("the lag is %s, after %s", got.Lag, age)
		}
		if lag := testutil.ToFloat64(c.cfg.Metrics.lag.WithLabelValues(got.Relay)); lag != got.Lag.Seconds() {
			t.Errorf("the metric of the lag is %v, want %v", lag, got.Lag.Seconds())
		}
		if r.crawls != before+1 || *introduced != 1 {
			t.Errorf("%d crawl requests and %d introductions, want one each", r.crawls-before, *introduced)
		}
		r.set(func() { _, r.rev = h.head() })
		time.Sleep(5 * time.Minute)
		if got := c.Relays()[0]; got.State != StateCurrent || got.Lag != 0 || got.Reason != "" {
			t.Errorf("after it has read all commits: %+v", got)
		}
		if current := testutil.ToFloat64(c.cfg.Metrics.current.WithLabelValues(got.Relay)); current != 1 {
			t.Errorf("the metric of current relays is %v, want 1", current)
		}
	})
}

// A relay is unreachable after several failures in a row.
func TestRelayUnreachable(t *testing.T) {
	t.Parallel()
	withRelay(t, func(c *Crawler, _ *hold, r *statusRelay, _ *int) {
		time.Sleep(5 * time.Minute)
		r.set(func() { r.down = true })
		time.Sleep(12 * time.Minute)
		if got := c.Relays()[0]; got.State != StateCurrent {
			t.Errorf("after one failure: %+v", got)
		}
		time.Sleep(30 * time.Minute)
		if got := c.Relays()[0]; got.State != StateUnreachable {
			t.Errorf("after three failures: %+v", got)
		}
	})
}
