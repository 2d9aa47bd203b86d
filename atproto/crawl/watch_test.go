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

// carrier is a relay that says what it has of an account.
type carrier struct {
	mu      sync.Mutex
	rev     string            // of the last commit that it has
	without map[string]bool   // methods that it does not serve
	answers map[string]string // in place of its own, by method: a JSON object, or the name of an error
	down    bool
	crawls  int // requests to crawl
	asked   int // questions
}

func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	method := req.URL.Path[strings.LastIndexByte(req.URL.Path, '.')+1:]
	if c.down {
		return nil, errors.New("no route")
	}
	answer := func(status int, body any) (*http.Response, error) {
		text, _ := json.Marshal(body)
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(text)))}, nil
	}
	if method == "requestCrawl" {
		c.crawls++
		return answer(200, nil)
	}
	c.asked++
	if c.without[method] {
		return answer(404, map[string]string{"error": "MethodNotImplemented"})
	}
	if text := c.answers[method]; strings.HasPrefix(text, "{") {
		return answer(200, json.RawMessage(text))
	} else if text != "" {
		return answer(400, map[string]string{"error": text})
	}
	switch method {
	case "getRepoStatus":
		return answer(200, map[string]any{"did": account, "active": true, "rev": c.rev})
	case "getLatestCommit":
		return answer(200, map[string]any{"rev": c.rev})
	default:
		return answer(200, map[string]any{"status": "active"})
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

// watching runs a test in a bubble with a hold, and one relay that has its
// first commit.
func watching(t *testing.T, test func(*Crawler, *hold, *carrier, *int)) {
	synctest.Test(t, func(t *testing.T) {
		h, r, introduced := &hold{}, &carrier{without: map[string]bool{}, answers: map[string]string{}}, 0
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
		time.Sleep(10 * time.Second) // it was asked to crawl
		test(c, h, r, &introduced)
		cancel()
		<-done
	})
}

// set changes what the relay answers.
func (c *carrier) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func TestRelayStates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*carrier)
		state  State
		reason string // a part of it
	}{
		"current":               {func(*carrier) {}, StateCurrent, ""},
		"without getRepoStatus": {func(r *carrier) { r.without["getRepoStatus"] = true }, StateCurrent, ""},
		"without getHostStatus": {func(r *carrier) { r.without["getHostStatus"] = true }, StateCurrent, ""},
		"without any":           {func(r *carrier) { r.without["getRepoStatus"], r.without["getLatestCommit"] = true, true }, StateCurrent, ""},
		"status without rev":    {func(r *carrier) { r.answers["getRepoStatus"] = `{"active":true}` }, StateCurrent, ""},
		"unknown":               {func(r *carrier) { r.answers["getRepoStatus"] = "RepoNotFound" }, StateUnknown, "does not know"},
		"unknown by its commit": {func(r *carrier) { r.without["getRepoStatus"], r.answers["getLatestCommit"] = true, "RepoNotFound" }, StateUnknown, "does not know"},
		"not synchronized": {func(r *carrier) {
			r.without["getRepoStatus"], r.answers["getLatestCommit"] = true, "RepoNotSynchronized"
		}, StateUnknown, "does not know"},
		"taken down":              {func(r *carrier) { r.without["getRepoStatus"], r.answers["getLatestCommit"] = true, "RepoTakendown" }, StateInactive, "takendown"},
		"inactive":                {func(r *carrier) { r.answers["getRepoStatus"] = `{"active":false,"status":"deactivated"}` }, StateInactive, "deactivated"},
		"inactive, does not say":  {func(r *carrier) { r.answers["getRepoStatus"] = `{"active":false}` }, StateInactive, "inactive"},
		"host banned, not needed": {func(r *carrier) { r.answers["getHostStatus"] = `{"status":"banned"}` }, StateCurrent, ""},
		"unreachable":             {func(r *carrier) { r.down = true }, StateUnreachable, "no route"},
		"fails":                   {func(r *carrier) { r.answers["getRepoStatus"] = "InternalServerError" }, StateUnreachable, "InternalServerError"},
		"garbage":                 {func(r *carrier) { r.answers["getRepoStatus"] = `{"active":"x\u0000y"}` }, StateUnreachable, "invalid answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			watching(t, func(crawler *Crawler, _ *hold, r *carrier, _ *int) {
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

// A relay that stops reading shows after a while, is asked to crawl again once,
// and clears up when it has read on.
func TestRelayLags(t *testing.T) {
	t.Parallel()
	watching(t, func(c *Crawler, h *hold, r *carrier, introduced *int) {
		time.Sleep(time.Hour)
		if got := c.Relays()[0]; got.State != StateCurrent || got.Lag != 0 {
			t.Fatalf("got %+v", got)
		}
		asked := r.asked
		if asked > 15 { // two questions every 10 to 12 minutes
			t.Errorf("%d questions in an hour", asked)
		}
		before := r.crawls
		r.set(func() { r.answers["getHostStatus"] = `{"status":"throttled"}` })
		h.commit()
		missing := time.Now()
		for range 60 { // it goes on to commit
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
			t.Errorf("the metric says %v, want %v", lag, got.Lag.Seconds())
		}
		if r.crawls != before+1 || *introduced != 1 {
			t.Errorf("asked to crawl %d times and introduced %d times, want once each", r.crawls-before, *introduced)
		}
		r.set(func() { _, r.rev = h.head() })
		time.Sleep(5 * time.Minute)
		if got := c.Relays()[0]; got.State != StateCurrent || got.Lag != 0 || got.Reason != "" {
			t.Errorf("after it has read on: %+v", got)
		}
		if current := testutil.ToFloat64(c.cfg.Metrics.current.WithLabelValues(got.Relay)); current != 1 {
			t.Errorf("the metric says %v, want 1", current)
		}
	})
}

// One failure among answers is no state of its own.
func TestRelayAwayForAMoment(t *testing.T) {
	t.Parallel()
	watching(t, func(c *Crawler, _ *hold, r *carrier, _ *int) {
		time.Sleep(5 * time.Minute)
		r.set(func() { r.down = true })
		time.Sleep(12 * time.Minute)
		if got := c.Relays()[0]; got.State != StateCurrent {
			t.Errorf("after one failure: %+v", got)
		}
		time.Sleep(30 * time.Minute)
		if got := c.Relays()[0]; got.State != StateUnreachable {
			t.Errorf("after three: %+v", got)
		}
	})
}
