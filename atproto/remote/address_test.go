package remote

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/remote/remotetest"
)

// newDirectory starts a directory of did:plc with one document.
func newDirectory(t *testing.T, doc identity.Document) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+doc.ID {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(doc)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestParseDocument(t *testing.T) {
	t.Parallel()
	const did, local = "did:plc:z72i7hdynmk6r22z27h6tvur", "did:web:localhost%3A5000"
	atproto := identity.Service{ID: "#atproto_pds", Type: "AtprotoPersonalDataServer", ServiceEndpoint: "https://pds.example.com"}
	service := func(id, kind, endpoint string) identity.Service {
		return identity.Service{ID: id, Type: kind, ServiceEndpoint: endpoint}
	}
	for _, tc := range []struct {
		name     string
		hold, id string
		services []identity.Service
		endpoint string
		repo     string
		audience string
		error    string
	}{
		{"hold and PDS", did, did, []identity.Service{atproto, service("#atcr_hold", "AtcrHoldService", "https://hold.example.com/")}, "https://hold.example.com", "https://pds.example.com", did + "#atcr_hold", ""},
		{"hold with a full ID", did, did, []identity.Service{service(did+"#atcr_hold", "AtcrHoldService", "https://hold.example.com")}, "https://hold.example.com", "https://hold.example.com", did + "#atcr_hold", ""},
		{"hold with another fragment", did, did, []identity.Service{atproto, service("#hold", "AtcrHoldService", "https://hold.example.com")}, "https://hold.example.com", "https://pds.example.com", did + "#hold", ""},
		{"PDS only", did, did, []identity.Service{atproto}, "https://pds.example.com", "https://pds.example.com", did + "#atproto_pds", ""},
		{"on this machine", local, local, []identity.Service{service("#atcr_hold", "", "http://localhost:5000")}, "http://localhost:5000", "http://localhost:5000", local + "#atcr_hold", ""},
		{"no service", did, did, []identity.Service{service("#other", "", "https://x.example.com")}, "", "", "", "has no service #atcr_hold or #atproto_pds"},
		{"of another DID", did, "did:plc:other", []identity.Service{atproto}, "", "", "", "it is the document of did:plc:other"},
		{"http", did, did, []identity.Service{service("#atcr_hold", "", "http://hold.example.com")}, "", "", "", "on this machine can use http"},
		{"private address", did, did, []identity.Service{service("#atcr_hold", "", "https://10.0.0.1")}, "", "", "", "neither a public nor a loopback address"},
		{"this machine, named by another", did, did, []identity.Service{service("#atcr_hold", "", "http://localhost:5000")}, "", "", "", "its service is on this machine"},
		{"the repo on this machine", did, did, []identity.Service{service("#atcr_hold", "", "https://hold.example.com"), service("#atproto_pds", "", "https://127.0.0.1")}, "", "", "", "its service is on this machine"},
		{"with a path", did, did, []identity.Service{service("#atcr_hold", "", "https://hold.example.com/x")}, "", "", "", "more than a host and port"},
		{"with a password", did, did, []identity.Service{service("#atcr_hold", "", "https://a:b@hold.example.com")}, "", "", "", "can't have a password"},
	} {
		h, err := New(Config{Hold: tc.hold, Tokens: Signed(owner, nil, nil)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.parse(&identity.Document{ID: tc.id, Service: tc.services})
		if tc.error != "" {
			if err == nil || !strings.Contains(err.Error(), tc.error) {
				t.Errorf("%s: got %v, want %q", tc.name, err, tc.error)
			}
			continue
		}
		if err != nil || got.endpoint.String() != tc.endpoint || got.repo.String() != tc.repo || got.audiences[0] != tc.audience || got.audiences[1] != tc.hold {
			t.Errorf("%s: got %+v, %v", tc.name, got, err)
		}
	}
}

// A hold with a did:plc moves: its address is looked up again.
func TestHoldMoves(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	var fetched atomic.Int32
	var endpoint atomic.Value
	endpoint.Store(r.server.URL)
	const did = "did:plc:z72i7hdynmk6r22z27h6tvur"
	directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		_ = json.NewEncoder(w).Encode(identity.Document{ID: did, Service: []identity.Service{{ID: "#atcr_hold", ServiceEndpoint: endpoint.Load().(string)}}})
	}))
	defer directory.Close()
	r.cfg.Hold, r.cfg.PLC = did, directory.URL
	r.restart()
	// The test server has another DID, so it refuses the tokens. The address is used anyway.
	want := func(fetches int32, status int, at string) {
		t.Helper()
		failed := r.fail(r.push(1))
		if fetched.Load() != fetches || failed.Status != status || r.Status().Endpoint != at {
			t.Errorf("got %v, %d fetches, endpoint %s, want status %d, %d fetches", failed, fetched.Load(), r.Status().Endpoint, status, fetches)
		}
	}
	want(1, 401, r.server.URL)
	want(1, 401, r.server.URL)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	endpoint.Store(other.URL)
	r.Pass(refreshError)
	want(2, 404, other.URL)
	directory.Close() // the address that is known is used
	r.Pass(time.Hour)
	want(2, 404, other.URL)
}
