package hold

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

const (
	maxBody      = 1_000_000        // bytes of a request, as at the reference server
	maxQuery     = 32 << 10         // bytes of a query, twice what the reference server takes of a whole header
	bodyTimeout  = 30 * time.Second // for a whole request body
	drainTimeout = time.Second      // for one that nobody wants
)

// method is one XRPC method: how it is called, who may, and what it answers.
type method struct {
	verb   string // GET for a query, POST for a procedure
	may    func(*call) error
	answer func(*call) (any, error) // a value for JSON, or a stream
}

// call is one request to a method, after its parameters and body were held
// against the schema.
type call struct {
	*http.Request
	nsid   string
	params map[string]any
	input  map[string]any // of a procedure that has a body
	most   int64          // bytes of it that are read; 0: maxBody
	reply  http.Header    // the answer's
	writer http.ResponseWriter
	caller caller // of a method for other services
}

// nothing is the answer of a procedure that has no output.
type nothing struct{}

// stream answers with something other than JSON.
type stream struct {
	contentType string
	write       func(io.Writer) error
}

func (s *Server) xrpc(w http.ResponseWriter, r *http.Request, nsid string) {
	allowBrowsers(w.Header())
	if r.Method == http.MethodOptions {
		allowAnyCall(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return
	}
	nsid = strings.TrimSuffix(nsid, "/") // as the reference server does
	if nsid == "_health" {
		s.health(w, r)
		return
	}
	if nsid == nsidSubscribeRepos {
		s.subscribeRepos(w, r)
		return
	}
	answer, err := s.answer(w, r, nsid)
	if err != nil {
		s.fail(w, r, nsid, err)
		return
	}
	if body, ok := answer.(stream); ok {
		s.send(w, r, nsid, body)
		return
	}
	if _, ok := answer.(nothing); ok {
		return
	}
	s.reply(w, r, http.StatusOK, answer)
}

// allowBrowsers lets scripts of any site call: nothing here depends on cookies.
func allowBrowsers(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "*")
}

// allowAnyCall answers a browser that asks before it calls.
func allowAnyCall(h http.Header) {
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "*, Authorization")
	h.Set("Access-Control-Max-Age", "86400")
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, nsid string) (any, error) {
	m, ok := s.methods[nsid]
	if !ok {
		return nil, unknownMethod(nsid)
	}
	verb := r.Method
	if verb == http.MethodHead {
		verb = http.MethodGet
	}
	if verb != m.verb {
		w.Header().Set("Allow", m.verb)
		return nil, invalidRequest("Incorrect HTTP method (%.20s) expected %s", r.Method, m.verb)
	}
	if m.verb == http.MethodPost || r.Header.Get("Authorization") != "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	if m.verb == http.MethodPost {
		s.expectBody(w, bodyTimeout)
	}
	c := &call{Request: r, nsid: nsid, reply: w.Header(), writer: w}
	if err := m.may(c); err != nil {
		s.expectBody(w, drainTimeout)
		return nil, err
	}
	if len(r.URL.RawQuery) > maxQuery {
		return nil, errLongQuery
	}
	if err := c.readParams(); err != nil {
		return nil, err
	}
	if m.verb == http.MethodPost {
		if err := c.readInput(w); err != nil {
			return nil, err
		}
	}
	return m.answer(c)
}

// expectBody says how long the body, from here on, may take to come. That goes
// for one that is refused unread, too: the server drains it, and keeps the
// request's place meanwhile.
func (s *Server) expectBody(w http.ResponseWriter, most time.Duration) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(min(most, s.bodyTimeout)))
}

func unknownMethod(nsid string) error {
	if _, err := syntax.ParseNSID(nsid); err != nil {
		return invalidRequest("not the name of a method: %.80q", nsid)
	}
	message := "this hold does not serve " + nsid
	if who, known := servedElsewhere[nsid]; known {
		message += ": " + who
	}
	return &Error{http.StatusNotImplemented, "MethodNotImplemented", message}
}

// servedElsewhere are methods one might expect of an account's host.
var servedElsewhere = map[string]string{
	"com.atproto.sync.requestCrawl":          "a relay serves it",
	"com.atproto.sync.notifyOfUpdate":        "a relay serves it",
	"com.atproto.sync.listHosts":             "a relay serves it",
	"com.atproto.sync.getHostStatus":         "a relay serves it",
	"com.atproto.sync.listReposByCollection": "a relay serves it; here com.atproto.repo.describeRepo tells the collections",
	"com.atproto.server.createAccount":       "this hold has the one account of its operator",
	lexicon.NSIDNotifyManifest:               "a hold inside a registry serves it, and this one runs without",
}

func (c *call) readParams() (err error) {
	if c.params, err = lexicon.Params(c.nsid, c.URL.Query()); err != nil {
		return invalidRequest("Invalid %s params: %v", c.nsid, err)
	}
	return nil
}

// readInput reads the body of a procedure that takes one, within its limits of
// size, also of what is compressed in it, and time. One that takes none leaves it
// unread.
func (c *call) readInput(w http.ResponseWriter) error {
	if !lexicon.HasInput(c.nsid) {
		return nil
	}
	if err := c.checkEncoding(); err != nil {
		return err
	}
	most := cmp.Or(c.most, maxBody)
	if c.ContentLength > most {
		return errTooLarge
	}
	body := bytes.NewBuffer(make([]byte, 0, max(0, c.ContentLength)+bytes.MinRead))
	if err := c.readBody(body, most); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // from here on it would end the handler
	raw := bytes.TrimPrefix(body.Bytes(), []byte("\ufeff"))        // a byte order mark, which some clients send
	if len(raw) == 0 {
		raw = []byte("{}")
	}
	input, err := lexicon.Input(c.nsid, raw)
	if errors.Is(err, lexicon.ErrSyntax) {
		return &Error{http.StatusBadRequest, "SyntaxError", err.Error()}
	}
	if err != nil {
		return invalidRequest("Input/%v", err)
	}
	c.input = input
	return nil
}

func (c *call) checkEncoding() error {
	given := c.Header.Get("Content-Type")
	if given == "" {
		return invalidRequest("Request encoding (Content-Type) required but not provided")
	}
	if mediaType, _, err := mime.ParseMediaType(given); err != nil || mediaType != "application/json" {
		return invalidRequest("Wrong request encoding (Content-Type): %.80s", given)
	}
	return nil
}

// param is a string parameter, empty when it is not given.
func (c *call) param(name string) string {
	text, _ := c.params[name].(string)
	return text
}

// text is a string member of the body, empty when it is not given.
func (c *call) text(name string) string {
	text, _ := c.input[name].(string)
	return text
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, nsid string, err error) {
	told := asError(err)
	if told.Status >= http.StatusInternalServerError && told.Status != http.StatusNotImplemented {
		s.lg.Error("request failed", "method", nsid, "error", err)
	}
	s.reply(w, r, told.Status, map[string]string{"error": told.Name, "message": told.Message})
}

func (s *Server) reply(w http.ResponseWriter, r *http.Request, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		s.lg.Error("answer is not JSON", "path", r.URL.Path, "error", err)
		http.Error(w, errInternal.Message, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// send streams an answer. When it breaks off, the connection is cut, so that
// the client cannot take the part for the whole.
func (s *Server) send(w http.ResponseWriter, r *http.Request, nsid string, body stream) {
	w.Header().Set("Content-Type", body.contentType)
	if r.Method == http.MethodHead {
		return
	}
	out := begun{Writer: w}
	err := body.write(&out)
	if err == nil {
		return
	}
	if !out.yes {
		w.Header().Del("Content-Type")
		s.fail(w, r, nsid, err)
		return
	}
	s.lg.Warn("answer broke off", "method", nsid, "error", err)
	panic(http.ErrAbortHandler)
}

// begun notes whether anything of an answer was written.
type begun struct {
	io.Writer
	yes bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.Writer.Write(p)
}
