package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

const (
	fakeDID    = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	fakeHandle = "alice.test"
)

// A fakePDS is a PDS with one account, and the PLC directory of the account. It responds
// as the reference PDS does, unless a test replaces responses.
type fakePDS struct {
	*httptest.Server
	inside *httptest.Server // a server that the registry must not call
	visits atomic.Int32     // of inside

	mu       sync.Mutex
	fault    http.HandlerFunc // instead of all responses of the PDS; nil: none
	endpoint string           // of the PDS in the DID document
	password string
	expired  bool              // whether tokens have ended as soon as they are issued
	issued   int               // sessions
	logins   int               // attempts
	records  map[string]string // CIDs by path
}

func newFakePDS(t *testing.T) *fakePDS {
	p := &fakePDS{password: "secret-app-password-1", records: map[string]string{}}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	p.inside = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { p.visits.Add(1) }))
	t.Cleanup(p.inside.Close)
	p.endpoint = p.URL
	return p
}

// account is the account section of a registry that publishes to it.
func (p *fakePDS) account(identifier, passwordFile string) string {
	return fmt.Sprintf("{service: %q, identifier: %q, password_file: %q, plc: %q}", p.URL, identifier, passwordFile, p.URL)
}

// set changes what the PDS does.
func (p *fakePDS) set(change func(p *fakePDS)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *fakePDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	if method, ok := strings.CutPrefix(r.URL.Path, "/xrpc/"); ok && fault != nil {
		if method == "com.atproto.server.createSession" {
			p.set(func(p *fakePDS) { p.logins++ })
		}
		fault(w, r)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve(w, r)
}

// serve responds without a fault. The caller must hold mu.
func (p *fakePDS) serve(w http.ResponseWriter, r *http.Request) {
	query, token := r.URL.Query(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch method := strings.TrimPrefix(r.URL.Path, "/xrpc/"); method {
	case "/" + fakeDID:
		sendJSON(w, 200, map[string]any{
			"id": fakeDID, "alsoKnownAs": []string{"at://" + fakeHandle},
			"service": []map[string]string{{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": p.endpoint}},
		})
	case "com.atproto.identity.resolveHandle":
		sendJSON(w, 200, map[string]string{"did": fakeDID})
	case "com.atproto.server.createSession":
		p.login(w, r)
	case "com.atproto.server.refreshSession":
		if p.expired || !strings.HasPrefix(token, "secret-refresh-") {
			sendError(w, 400, "ExpiredToken", "Token has been revoked")
			return
		}
		p.issue(w)
	case "com.atproto.sync.getLatestCommit":
		sendJSON(w, 200, map[string]string{"cid": block.CIDOf(nil).String(), "rev": "3kaaaaaaaaa22"})
	case "com.atproto.repo.getRecord":
		id, ok := p.records[query.Get("collection")+"/"+query.Get("rkey")]
		if !ok {
			sendError(w, 400, "RecordNotFound", "Could not locate record")
			return
		}
		sendJSON(w, 200, map[string]any{"uri": "at://" + fakeDID, "cid": id, "value": map[string]any{}})
	case "com.atproto.repo.listRecords":
		sendJSON(w, 200, map[string]any{"records": []any{}})
	case "com.atproto.repo.applyWrites":
		if p.expired || !strings.HasPrefix(token, "secret-access-") {
			sendError(w, 400, "ExpiredToken", "Token has expired")
			return
		}
		p.apply(w, r)
	default:
		sendError(w, 400, "InvalidRequest", "No service configured for "+method)
	}
}

// login is createSession. The caller must hold mu.
func (p *fakePDS) login(w http.ResponseWriter, r *http.Request) {
	p.logins++
	var input struct{ Password string }
	if err := json.NewDecoder(r.Body).Decode(&input); err != nil || input.Password != p.password {
		sendError(w, 401, "AuthenticationRequired", "Invalid identifier or password")
		return
	}
	p.issue(w)
}

// issue sends a new session. The caller must hold mu.
func (p *fakePDS) issue(w http.ResponseWriter) {
	p.issued++
	sendJSON(w, 200, map[string]any{
		"did": fakeDID, "handle": fakeHandle,
		"accessJwt": fmt.Sprint("secret-access-", p.issued), "refreshJwt": fmt.Sprint("secret-refresh-", p.issued),
	})
}

// apply is applyWrites for creates. The caller must hold mu.
func (p *fakePDS) apply(w http.ResponseWriter, r *http.Request) {
	var input struct {
		Writes []struct {
			Collection, RKey string
			Value            json.RawMessage
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &input) != nil {
		sendError(w, 400, "InvalidRequest", "bad input")
		return
	}
	results := []map[string]string{}
	for _, write := range input.Writes {
		value, err := lexicon.FromJSON(write.Value)
		path := write.Collection + "/" + write.RKey
		if _, exists := p.records[path]; exists || err != nil {
			sendError(w, 500, "InternalServerError", "Internal Server Error")
			return
		}
		p.records[path] = block.CIDOf(value).String()
		results = append(results, map[string]string{"uri": "at://" + fakeDID + "/" + path, "cid": p.records[path]})
	}
	sendJSON(w, 200, map[string]any{"commit": map[string]string{"cid": block.CIDOf(nil).String(), "rev": "3kaaaaaaaaa22"}, "results": results})
}

// count is the number of records of a collection.
func (p *fakePDS) count(collection string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for path := range p.records {
		if strings.HasPrefix(path, collection+"/") {
			n++
		}
	}
	return n
}

func (p *fakePDS) loginCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logins
}

// fakeSecrets is in the password and in each token of a fakePDS, and nowhere else.
const fakeSecrets = "secret-"

func sendJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func sendError(w http.ResponseWriter, status int, name, message string) {
	sendJSON(w, status, map[string]string{"error": name, "message": message})
}
