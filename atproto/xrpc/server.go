package xrpc

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const maxQuery = 32 << 10 // bytes of a query; the reference server takes half as much for the whole header

// Server serves /xrpc/. Its fields are set before the first request.
type Server struct {
	// Methods by NSID.
	Methods map[string]Method
	// Handlers of GET endpoints that write their own response, by the name after
	// /xrpc/.
	Handlers map[string]http.Handler
	// Elsewhere adds to the error for methods that other services serve.
	Elsewhere map[string]string

	// Errors translates an error of a Method; nil means an internal error.
	Errors func(error) *Error

	// BodyTimeout limits the time for a JSON body, and for each read of another
	// body; 0: 30 s.
	BodyTimeout time.Duration
	Logger      *slog.Logger
}

// Method is one XRPC method.
type Method struct {
	Verb   string                   // GET for a query, POST for a procedure
	Access func(*Call) error        // returns the error for a client that may not call it; runs before the body is read
	Serve  func(*Call) (any, error) // returns a value for JSON, a Stream or Empty
}

// Query is a Method that is called with GET.
func Query(access func(*Call) error, serve func(*Call) (any, error)) Method {
	return Method{http.MethodGet, access, serve}
}

// Procedure is a Method that is called with POST.
func Procedure(access func(*Call) error, serve func(*Call) (any, error)) Method {
	return Method{http.MethodPost, access, serve}
}

// Public is the Access of a Method that anybody may call.
func Public(*Call) error { return nil }

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nsid, ok := strings.CutPrefix(r.URL.Path, "/xrpc/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	nsid = strings.TrimSuffix(nsid, "/") // as the reference server does
	AllowBrowsers(w.Header())
	if r.Method == http.MethodOptions {
		preflight(w)
		return
	}
	if handler := s.Handlers[nsid]; handler != nil {
		if err := checkVerb(w, r, http.MethodGet); err != nil {
			s.fail(w, nsid, err)
			return
		}
		handler.ServeHTTP(w, r)
		return
	}
	result, err := s.call(w, r, nsid)
	if err != nil {
		s.fail(w, nsid, err)
		return
	}
	s.respond(w, r, nsid, result)
}

func (s *Server) call(w http.ResponseWriter, r *http.Request, nsid string) (any, error) {
	m, ok := s.Methods[nsid]
	if !ok {
		return nil, s.unknownMethod(nsid)
	}
	if err := checkVerb(w, r, m.Verb); err != nil {
		return nil, err
	}
	post := m.Verb == http.MethodPost
	if post || r.Header.Get("Authorization") != "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	c := newCall(s, w, r, nsid)
	if post {
		c.LimitBodyTime(bodyTimeout)
	}
	if err := m.Access(c); err != nil {
		c.LimitBodyTime(drainTimeout)
		return nil, err
	}
	if len(r.URL.RawQuery) > maxQuery {
		return nil, errQueryTooLong
	}
	if err := c.readParams(); err != nil {
		return nil, err
	}
	if post {
		if err := c.readInput(); err != nil {
			return nil, err
		}
	}
	return m.Serve(c)
}

func checkVerb(w http.ResponseWriter, r *http.Request, want string) error {
	if r.Method == want || r.Method == http.MethodHead && want == http.MethodGet {
		return nil
	}
	w.Header().Set("Allow", want)
	return InvalidRequest("Incorrect HTTP method (%.20s) expected %s", r.Method, want)
}

func (s *Server) unknownMethod(nsid string) error {
	if _, err := syntax.ParseNSID(nsid); err != nil {
		return InvalidRequest("invalid method name: %.80q", nsid)
	}
	message := "unsupported method " + nsid
	if hint, known := s.Elsewhere[nsid]; known {
		message += ": " + hint
	}
	return NewError(http.StatusNotImplemented, "MethodNotImplemented", message)
}
