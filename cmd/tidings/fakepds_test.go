package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

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
	expired  bool // whether tokens have ended as soon as they are issued
	issued   int  // sessions
	logins   int  // attempts
	commits  int
	records  map[string]string // CIDs by path
	values   map[string][]byte // records by path, in DAG-CBOR
	blobs    map[string]bool   // CIDs of those that were uploaded

	hourLimit int              // points; 0: no limit
	now       func() time.Time // for hourLimit
	charged   []charge
	limited   int // calls beyond hourLimit
}

// A charge are the points of a call.
type charge struct {
	at     time.Time
	points int
}

// charge charges the points of a call, and reports whether hourLimit allowed it. As at the
// reference PDS a call beyond the limit costs all that is left. The caller must hold mu.
func (p *fakePDS) charge(points int) bool {
	if p.hourLimit == 0 {
		return true
	}
	now, left := p.now(), p.hourLimit
	for _, c := range p.charged {
		if now.Sub(c.at) < time.Hour {
			left -= c.points
		}
	}
	p.charged = append(p.charged, charge{now, min(points, left)})
	if points > left {
		p.limited++
	}
	return points <= left
}

func newFakePDS(t *testing.T) *fakePDS {
	p := &fakePDS{password: "secret-app-password-1", records: map[string]string{}, values: map[string][]byte{}, blobs: map[string]bool{}}
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
		sendJSON(w, 200, p.commit())
	case "com.atproto.repo.getRecord":
		record, ok := p.output(query.Get("collection") + "/" + query.Get("rkey"))
		if !ok {
			sendError(w, 400, "RecordNotFound", "Could not locate record")
			return
		}
		sendJSON(w, 200, record)
	case "com.atproto.repo.listRecords":
		p.list(w, query)
	case "com.atproto.repo.uploadBlob":
		p.upload(w, r)
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

// output is a record as getRecord returns it. The caller must hold mu.
func (p *fakePDS) output(path string) (record map[string]any, ok bool) {
	id, ok := p.records[path]
	if !ok {
		return nil, false
	}
	value, err := lexicon.ToJSON(p.values[path])
	return map[string]any{"uri": "at://" + fakeDID + "/" + path, "cid": id, "value": json.RawMessage(value)}, err == nil
}

// list is listRecords. The caller must hold mu.
func (p *fakePDS) list(w http.ResponseWriter, query url.Values) {
	prefix, cursor := query.Get("collection")+"/", query.Get("cursor")
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 || limit > 100 {
		sendError(w, 400, "InvalidRequest", "limit")
		return
	}
	paths := slices.Sorted(maps.Keys(p.records))
	reverse := query.Get("reverse") == "true"
	if !reverse {
		slices.Reverse(paths)
	}
	page := map[string]any{}
	list := []any{}
	for _, path := range paths {
		key, ok := strings.CutPrefix(path, prefix)
		if !ok || cursor != "" && (reverse && key <= cursor || !reverse && key >= cursor) {
			continue
		}
		record, _ := p.output(path)
		if list = append(list, record); len(list) == limit {
			page["cursor"] = key
			break
		}
	}
	page["records"] = list
	sendJSON(w, 200, page)
}

// upload is uploadBlob. The caller must hold mu.
func (p *fakePDS) upload(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		sendError(w, 400, "InvalidRequest", "bad input")
		return
	}
	id := block.Digest(sha256.Sum256(content)).BlobCID().String()
	p.blobs[id] = true
	sendJSON(w, 200, map[string]any{"blob": map[string]any{
		"$type": "blob", "ref": map[string]string{"$link": id}, "mimeType": r.Header.Get("Content-Type"), "size": len(content),
	}})
}

// apply is applyWrites: all writes or none. It refuses records that violate their schema and
// those with a blob that was not uploaded. The caller must hold mu.
func (p *fakePDS) apply(w http.ResponseWriter, r *http.Request) {
	var input struct {
		Writes []struct {
			Type             string `json:"$type"`
			Collection, RKey string
			Value            json.RawMessage
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &input) != nil {
		sendError(w, 400, "InvalidRequest", "bad input")
		return
	}
	points := 0
	for _, write := range input.Writes {
		_, kind, _ := strings.Cut(write.Type, "#")
		points += map[string]int{"create": 3, "update": 2, "delete": 1}[kind]
	}
	if !p.charge(points) {
		w.Header().Set("Retry-After", "3600")
		sendError(w, 429, "RateLimitExceeded", "Rate Limit Exceeded")
		return
	}
	ids, values, results := maps.Clone(p.records), maps.Clone(p.values), []map[string]string{}
	for _, write := range input.Writes {
		path := write.Collection + "/" + write.RKey
		_, exists := ids[path]
		if exists != !strings.HasSuffix(write.Type, "#create") {
			sendError(w, 500, "InternalServerError", "Internal Server Error")
			return
		}
		if strings.HasSuffix(write.Type, "#delete") {
			delete(ids, path)
			delete(values, path)
			results = append(results, map[string]string{})
			continue
		}
		value, err := lexicon.FromJSON(write.Value)
		if err == nil {
			_, err = lexicon.Validate(write.Collection, value)
		}
		if err != nil {
			sendError(w, 400, "InvalidRequest", err.Error())
			return
		}
		blobs, _ := lexicon.BlobsIn(value)
		for _, blob := range blobs {
			if id := blob.Ref.String(); !p.blobs[id] {
				sendError(w, 400, "BlobNotFound", "Could not find blob: "+id)
				return
			}
		}
		ids[path], values[path] = block.CIDOf(value).String(), value
		results = append(results, map[string]string{"uri": "at://" + fakeDID + "/" + path, "cid": ids[path]})
	}
	p.records, p.values = ids, values
	p.commits++
	sendJSON(w, 200, map[string]any{"commit": p.commit(), "results": results})
}

// commit is the last commit. The caller must hold mu.
func (p *fakePDS) commit() map[string]string {
	return map[string]string{"cid": block.CIDOf(nil).String(), "rev": syntax.NewTID(1_700_000_000_000_000+int64(p.commits), 0).String()}
}

// remove removes a record as another client does.
func (p *fakePDS) remove(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.records, path)
	delete(p.values, path)
	p.commits++
}

// put adds a record as another client does.
func (p *fakePDS) put(t *testing.T, path string, record any) {
	t.Helper()
	value, err := lexicon.Encode(record)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records[path], p.values[path] = block.CIDOf(value).String(), value
	p.commits++
}

// paths are those of all records, in order.
func (p *fakePDS) paths() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.records))
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
