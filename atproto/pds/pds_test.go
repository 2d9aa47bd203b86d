package pds

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

const (
	alice    = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	password = "abcd-efgh-ijkl-mnop"
)

// server answers as a PDS does, with what a test overrides.
type server struct {
	*httptest.Server

	mu       sync.Mutex
	password string
	tokens   int             // that were issued
	revoked  map[string]bool // by token
	calls    map[string]int  // by method
	writes   []map[string]any
	override map[string]http.HandlerFunc // by method
}

func newServer(t *testing.T) *server {
	s := &server{password: password, revoked: map[string]bool{}, calls: map[string]int{}, override: map[string]http.HandlerFunc{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, q *http.Request) {
	method := strings.TrimPrefix(q.URL.Path, "/xrpc/")
	s.mu.Lock()
	s.calls[method]++
	override := s.override[method]
	s.mu.Unlock()
	if override != nil {
		override(w, q)
		return
	}
	token := strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch method {
	case "com.atproto.server.createSession":
		var in struct{ Identifier, Password string }
		json.NewDecoder(q.Body).Decode(&in)
		if in.Password != s.password {
			refuse(w, 401, "AuthenticationRequired", "Invalid identifier or password")
			return
		}
		s.session(w)
	case "com.atproto.identity.resolveHandle":
		reply(w, 200, map[string]string{"did": alice})
	case "/" + alice: // of the PLC directory
		reply(w, 200, map[string]any{
			"id": alice, "alsoKnownAs": []string{"at://alice.test"},
			"service": []map[string]string{{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": s.URL}},
		})
	case "com.atproto.server.refreshSession":
		if s.revoked[token] || !strings.HasPrefix(token, "refresh-") {
			refuse(w, 400, "ExpiredToken", "Token has been revoked")
			return
		}
		s.session(w)
	default:
		if s.revoked[token] || !strings.HasPrefix(token, "access-") {
			refuse(w, 400, "ExpiredToken", "Token has expired")
			return
		}
		s.apply(w, q)
	}
}

func (s *server) session(w http.ResponseWriter) {
	s.tokens++
	reply(w, 200, map[string]any{"did": alice, "handle": "alice.test", "accessJwt": fmt.Sprint("access-", s.tokens), "refreshJwt": fmt.Sprint("refresh-", s.tokens)})
}

func (s *server) apply(w http.ResponseWriter, q *http.Request) {
	var in struct {
		Repo   string
		Writes []map[string]any
	}
	content, _ := io.ReadAll(q.Body)
	if err := json.Unmarshal(content, &in); err != nil || q.ContentLength != int64(len(content)) || in.Repo != alice {
		refuse(w, 400, "InvalidRequest", "bad input")
		return
	}
	results := []map[string]any{}
	for _, write := range in.Writes {
		s.writes = append(s.writes, write)
		value, _ := json.Marshal(write["value"])
		cbor, _ := lexicon.FromJSON(value)
		results = append(results, map[string]any{"uri": "at://x", "cid": block.CIDOf(cbor).String()})
	}
	reply(w, 200, map[string]any{"commit": map[string]string{"cid": block.CIDOf([]byte("commit")).String(), "rev": "3kaaaaaaaaa22"}, "results": results})
}

// revoke ends all tokens with a prefix.
func (s *server) revoke(prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.tokens + 1 {
		s.revoked[fmt.Sprint(prefix, i)] = true
	}
}

func (s *server) called(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *server) on(method string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.override[method] = h
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, name, message string) {
	reply(w, status, map[string]string{"error": name, "message": message})
}

// rig is an account at a server, with a clock and a log.
type rig struct {
	t      *testing.T
	server *server
	cfg    Config
	now    time.Time
	log    strings.Builder
	*Account
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, server: newServer(t), now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	dir := t.TempDir()
	r.cfg = Config{
		Service: r.server.URL, Identifier: "alice.test", PasswordFile: filepath.Join(dir, "password"), File: filepath.Join(dir, "account.json"),
		PLC: r.server.URL, Now: func() time.Time { return r.now }, Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
	}
	r.write(password)
	r.reopen()
	return r
}

func (r *rig) write(password string) {
	if err := os.WriteFile(r.cfg.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// reopen is what a restart does.
func (r *rig) reopen() {
	a, err := Open(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Account = a
}

// layers returns so many creates.
func layers(n int) []repo.Write {
	var writes []repo.Write
	for i := range n {
		record, err := lexicon.Marshal(map[string]any{"$type": lexicon.NSIDLayer, "n": int64(i)})
		if err != nil {
			panic(err)
		}
		writes = append(writes, repo.Write{Action: repo.Create, Collection: lexicon.NSIDLayer, RKey: fmt.Sprintf("3kaaaaaaaaa%02d", i), Record: record})
	}
	return writes
}

func (r *rig) apply(n int) error {
	_, err := r.Apply(r.t.Context(), layers(n), nil, Normal)
	return err
}
