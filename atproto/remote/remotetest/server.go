package remotetest

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// Config configures a Server. The zero value is a hold of ATCR.
type Config struct {
	Audiences []string         // fragments that it accepts in tokens, such as "#atcr_hold"; nil: the bare DID only
	Services  []string         // fragments of its services; nil: "#atproto_pds" and "#atcr_hold"
	Keys      bool             // it honors keys and says so, as a hold of Tidings
	Ascending bool             // listRecords lists the oldest records first
	Ahead     time.Duration    // of its clock
	Now       func() time.Time // nil: time.Now
}

// A Server is a hold on this machine, with the methods of a faultproxy.Proxy that let its
// calls fail. Its methods may be called at the same time.
type Server struct {
	*faultproxy.Proxy
	DID, URL string

	cfg Config

	mu          sync.Mutex
	connections int
	trusted     map[string]atcrypto.PublicKey // by DID
	used        map[string]bool               // IDs of tokens
	calls       []Call
	records     []record // the oldest first
	answers     map[string]lexicon.NotifyManifestOutput
	counts      map[string]Counts // by owner and repository
	interrupt   int               // layers after which the next push fails; -1: none
	refusal     *refusal
	failing     string // repository; "": none
	tid         int64  // last, in microseconds
}

// A Call is a call of notifyManifest that reached the hold, whatever it answered.
type Call struct {
	Input    []byte
	Key      string
	Audience string // of the token
	Status   int    // of the answer
}

// Counts are the counts of a repository.
type Counts struct{ Pushes, Pulls int }

// New starts a hold, which ends with the test.
func New(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Audiences == nil {
		cfg.Audiences = []string{""}
	}
	if cfg.Services == nil {
		cfg.Services = []string{"#atproto_pds", "#atcr_hold"}
	}
	s := &Server{
		cfg: cfg, interrupt: -1, trusted: map[string]atcrypto.PublicKey{}, used: map[string]bool{},
		answers: map[string]lexicon.NotifyManifestOutput{}, counts: map[string]Counts{},
	}
	behind := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(behind.Close)
	var err error
	if s.Proxy, err = faultproxy.New(behind.URL, nil); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(s.Proxy)
	front.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.connections++
		}
	}
	front.Start()
	t.Cleanup(front.Close)
	t.Cleanup(func() { s.End() }) // before Close, which waits for endless answers
	s.URL = strings.Replace(front.URL, "127.0.0.1", "localhost", 1)
	s.DID = "did:web:localhost%3A" + front.URL[strings.LastIndexByte(front.URL, ':')+1:]
	return s
}

// Trust accepts tokens of an account for its own images.
func (s *Server) Trust(did string, key atcrypto.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trusted[did] = key
}

// Accept changes the audiences that are accepted.
func (s *Server) Accept(fragments ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Audiences = fragments
}

// Interrupt lets the next push fail with status 500 after it has written so many records
// and before it is counted.
func (s *Server) Interrupt(layers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt = layers
}

type refusal struct {
	status int
	header http.Header
	body   string
}

// Refuse answers calls of notifyManifest with a status and body, and does not apply them.
// In the body $TOKEN is the token of the call. Status 0 ends it.
func (s *Server) Refuse(status int, header http.Header, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = &refusal{status, header, body}
	if status == 0 {
		s.refusal = nil
	}
}

// FailFor answers pushes of a repository with status 500 and does not apply them.
func (s *Server) FailFor(repository string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = repository
}

// Calls returns the calls of notifyManifest so far.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call{}, s.calls...)
}

// Connections is how many connections were accepted.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// Layers returns the layer records, the oldest first.
func (s *Server) Layers() []lexicon.Layer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var layers []lexicon.Layer
	for _, r := range s.records {
		layers = append(layers, r.layer)
	}
	return layers
}

// Counts returns the counts of a repository.
func (s *Server) Counts(owner, repository string) Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[owner+"/"+repository]
}

// now is the time of the hold's clock.
func (s *Server) now() time.Time { return s.cfg.Now().Add(s.cfg.Ahead) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	switch r.URL.Path {
	case "/.well-known/did.json":
		reply(w, http.StatusOK, s.document())
	case "/xrpc/" + lexicon.NSIDNotifyManifest:
		s.notifyManifest(w, r)
	case "/xrpc/com.atproto.repo.listRecords":
		s.listRecords(w, r)
	default:
		refuse(w, http.StatusNotImplemented, "MethodNotImplemented", "Method Not Implemented")
	}
}

func (s *Server) document() identity.Document {
	types := map[string]string{"#atproto_pds": "AtprotoPersonalDataServer", "#atcr_hold": "AtcrHoldService"}
	doc := identity.Document{Context: []string{"https://www.w3.org/ns/did/v1"}, ID: s.DID}
	for _, fragment := range s.cfg.Services {
		doc.Service = append(doc.Service, identity.Service{ID: fragment, Type: types[fragment], ServiceEndpoint: s.URL})
	}
	return doc
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

func refuse(w http.ResponseWriter, status int, name, message string) {
	reply(w, status, map[string]string{"error": name, "message": message})
}
