package relay

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/relay"
	"github.com/bluesky-social/indigo/cmd/relay/relay/models"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// api serves the relay's status of the account, with the functions that indigo's relay
// program uses. That program itself refuses hosts on loopback. Requests to crawl are only
// counted.
func (w *world) api(crawls *atomic.Int32) string {
	answer := func(h http.ResponseWriter, status int, body map[string]any) {
		h.Header().Set("Content-Type", "application/json")
		h.WriteHeader(status)
		json.NewEncoder(h).Encode(body)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepoStatus", func(h http.ResponseWriter, q *http.Request) {
		did := q.FormValue("did")
		account, err := w.relay.Relay.GetAccount(q.Context(), syntax.DID(did))
		if errors.Is(err, relay.ErrAccountNotFound) {
			answer(h, 404, map[string]any{"error": "RepoNotFound", "message": "account not found"})
			return
		}
		if err != nil {
			answer(h, 500, map[string]any{"error": "DatabaseError"})
			return
		}
		body := map[string]any{"did": did, "active": account.IsActive()}
		if status := account.StatusField(); status != nil {
			body["status"] = *status
		}
		if known, err := w.relay.Relay.GetAccountRepo(q.Context(), account.UID); err == nil {
			body["rev"] = known.Rev
		}
		answer(h, 200, body)
	})
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getHostStatus", func(h http.ResponseWriter, q *http.Request) {
		host, err := w.relay.Relay.GetHost(q.Context(), q.FormValue("hostname"))
		if err != nil {
			answer(h, 404, map[string]any{"error": "HostNotFound"})
			return
		}
		answer(h, 200, map[string]any{"hostname": host.Hostname, "status": string(host.Status)})
	})
	mux.HandleFunc("POST /xrpc/com.atproto.sync.requestCrawl", func(h http.ResponseWriter, q *http.Request) {
		crawls.Add(1)
		answer(h, 200, map[string]any{})
	})
	server := httptest.NewServer(mux)
	w.Cleanup(server.Close)
	return server.URL
}

// firehose is the log of a world, as a Crawler needs it.
type firehose struct{ *world }

func (f firehose) Head() uint64              { return f.repo.Head().Seq }
func (firehose) Wake(uint64) <-chan struct{} { return nil }

// A relay that has blocked the host, and one that has taken the account down, show in what
// health reports and in the metrics, are asked once to crawl again, and are current again
// once they have all commits. The clock of the hold is an hour behind, so that a commit
// that a relay lacks is old enough.
func TestRelayStatus(t *testing.T) {
	w := newWorld(t, func() time.Time { return time.Now().Add(-time.Hour) })
	introduce := func(ctx context.Context) error { return w.repo.Notify(ctx, repo.Identity, repo.Account, repo.Sync) }
	var crawls, introductions atomic.Int32
	metrics := crawl.NewMetrics()
	crawler, err := crawl.New(crawl.Config{
		Hostname: w.addr, Relays: []string{w.api(&crawls)}, Log: firehose{w}, Metrics: metrics,
		Introduce: func(ctx context.Context) error { introductions.Add(1); return introduce(ctx) },
		Commit:    func() (did, rev string) { head := w.repo.Head(); return head.DID, head.Rev },
	})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.Collectors()...)
	check := func(when string, state crawl.State, reason string, minLag time.Duration, asked int32) {
		t.Helper()
		crawler.Query(t.Context())
		got := crawler.Relays()[0]
		if got.State != state || !strings.Contains(got.Reason, reason) || (got.Lag > 0) != (minLag > 0) || got.Lag < minLag {
			t.Errorf("%s: %+v, want %s with %q and a lag of %s", when, got, state, reason, minLag)
		}
		if lag := gauge(t, registry, "tidings_relay_lag_seconds"); lag != got.Lag.Seconds() {
			t.Errorf("%s: the metric of the lag is %v, want %v", when, lag, got.Lag.Seconds())
		}
		if current := gauge(t, registry, "tidings_relay_current"); (current == 1) != (state == crawl.StateCurrent) {
			t.Errorf("%s: the metric of current relays is %v", when, current)
		}
		if c, i := crawls.Load(), introductions.Load(); c != asked || i != asked {
			t.Errorf("%s: asked %d times to crawl and introduced %d times, want %d", when, c, i, asked)
		}
	}

	check("before the first event", crawl.StateUnknown, "does not know", 0, 1) // and introduces the account
	w.write(3)
	w.synced()
	check("with all commits", crawl.StateCurrent, "", 0, 1)

	host, err := w.relay.Relay.GetHost(t.Context(), w.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.relay.Relay.Slurper.KillUpstreamConnection(t.Context(), host.Hostname, true); err != nil {
		t.Fatal(err)
	}
	w.write(1)
	check("after the host was blocked", crawl.StateLagging, "host there is banned", time.Hour-time.Minute, 2)
	w.write(1)
	check("after another commit", crawl.StateLagging, "host there is banned", time.Hour-time.Minute, 2)
	if err := w.relay.Relay.UpdateHostStatus(t.Context(), host.ID, models.HostStatusActive); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old subscription ends", func() bool { return !w.relay.Relay.Slurper.CheckIfSubscribed(w.addr) })
	if err := w.relay.Relay.SubscribeToHost(t.Context(), w.addr, true, true); err != nil {
		t.Fatal(err)
	}
	w.subscribed()
	if err := introduce(t.Context()); err != nil { // as a Crawler that runs does for new subscribers
		t.Fatal(err)
	}
	w.synced()
	check("after the host was unblocked", crawl.StateCurrent, "", 0, 2)

	takeDown := func(status models.AccountStatus) {
		t.Helper()
		if err := w.relay.Relay.UpdateAccountLocalStatus(t.Context(), syntax.DID(w.repo.Head().DID), status, false); err != nil {
			t.Fatal(err)
		}
	}
	takeDown(models.AccountStatusTakendown)
	check("after the account was taken down", crawl.StateInactive, "takendown", 0, 3)
	takeDown(models.AccountStatusActive)
	check("after the account was restored", crawl.StateCurrent, "", 0, 3)
}

// gauge returns the value of a gauge that has one.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
