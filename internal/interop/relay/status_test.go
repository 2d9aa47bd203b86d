package relay

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/relay"
	"github.com/bluesky-social/indigo/cmd/relay/relay/models"

	"github.com/tidings-dev/tidings/atproto/crawl"
)

// api serves the relay's status of the account, with the functions that indigo's relay
// program uses. That program itself refuses hosts on loopback.
func (w *world) api() string {
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
	server := httptest.NewServer(mux)
	w.Cleanup(server.Close)
	return server.URL
}

// TestRelayStatus checks the status of a relay that has all commits, that lacks the last
// one because it has blocked the host, and that has taken the account down.
func TestRelayStatus(t *testing.T) {
	w := newWorld(t)
	api := w.api()
	check := func() crawl.RelayStatus {
		t.Helper()
		head := w.repo.Head()
		list, err := crawl.Check(t.Context(), []string{api}, w.addr, head.DID, head.Rev)
		if err != nil {
			t.Fatal(err)
		}
		return list[0]
	}
	if got := check(); got.State != crawl.StateUnknown {
		t.Errorf("before the first commit: %+v", got)
	}
	w.write(3)
	w.synced()
	if got := check(); got.State != crawl.StateCurrent || got.Lag != 0 {
		t.Errorf("with all commits: %+v", got)
	}

	host, err := w.relay.Relay.GetHost(t.Context(), w.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.relay.Relay.Slurper.KillUpstreamConnection(t.Context(), host.Hostname, true); err != nil {
		t.Fatal(err)
	}
	w.write(1)
	if got := check(); got.State != crawl.StateCurrent || got.Lag == 0 {
		t.Errorf("after the host was blocked: %+v", got)
	}

	head := w.repo.Head()
	if err := w.relay.Relay.UpdateAccountLocalStatus(t.Context(), syntax.DID(head.DID), models.AccountStatusTakendown, false); err != nil {
		t.Fatal(err)
	}
	if got := check(); got.State != crawl.StateInactive {
		t.Errorf("after the account was taken down: %+v", got)
	}
}
