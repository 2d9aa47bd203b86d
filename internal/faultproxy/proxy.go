// Package faultproxy is a proxy in front of a PDS that makes calls fail, for tests of
// its clients: a call that the PDS has applied and whose response is lost, one that never
// reached it, limits, responses of other programs, expired tokens.
//
// The proxy buffers requests and responses, so that a call is delivered completely or not
// at all. It does not reuse connections to its target, so a call never fails because the
// target has closed an idle one.
package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// refreshSession is the one method whose bearer is a refresh token.
const refreshSession = "com.atproto.server.refreshSession"

// A Call is a call that was delivered to the target.
type Call struct {
	Method string // NSID
	Input  []byte // body of the request
	Status int    // of the target's response; 0: it closed the connection without one
	Output []byte // body of the response
}

// A Proxy is an http.Handler that forwards calls to its target. Its methods may be
// called at the same time.
type Proxy struct {
	target    *url.URL
	transport http.RoundTripper
	observe   func(Call)

	mu      sync.Mutex
	fault   *Fault          // nil: calls succeed
	ended   chan struct{}   // closed when fault ends
	hits    int             // calls that fault has met
	token   string          // the last access token that a client used
	expired map[string]bool // access tokens that are refused
	revoked bool            // the next refresh is refused
}

// New returns a proxy of the server at a base URL. Observe, unless nil, is called after
// each call that the target has received, possibly at the same time as another one.
func New(target string, observe func(Call)) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	if observe == nil {
		observe = func(Call) {}
	}
	return &Proxy{
		target: u, transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		observe: observe, expired: map[string]bool{},
	}, nil
}

// Start lets calls fail until End, or the next Start. It returns how many calls the
// previous fault met.
func (p *Proxy) Start(f Fault) (hits int) { return p.replace(&f) }

// End lets calls succeed again, and closes connections whose response has not ended. It
// returns how many calls the fault met.
func (p *Proxy) End() (hits int) { return p.replace(nil) }

func (p *Proxy) replace(f *Fault) (hits int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != nil {
		close(p.ended)
	}
	hits, p.hits = p.hits, 0
	p.fault, p.ended = f, make(chan struct{})
	return hits
}

// ExpireToken refuses the access token that was used last, as a PDS does when it has
// expired.
func (p *Proxy) ExpireToken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expired[p.token] = true
}

// RevokeSession expires the access token, and refuses the next refresh.
func (p *Proxy) RevokeSession() {
	p.ExpireToken()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked = true
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	input, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	method := strings.TrimPrefix(r.URL.Path, "/xrpc/")
	if p.refuses(method, r.Header.Get("Authorization")) {
		respond(w, http.StatusBadRequest, jsonType, `{"error":"ExpiredToken","message":"Token has expired"}`)
		return
	}
	switch f, ended := p.meet(method); {
	case f == nil:
		p.deliver(r, method, input).write(w)
	case f.Delivered:
		f.respond(w, r, p.deliver(r, method, input), ended)
	case f.Kind == Delay:
		hold(r.Context(), f.For)
		p.deliver(r, method, input).write(w)
	default:
		f.respond(w, r, nil, ended)
	}
}

// refuses reports whether the call has a token that is refused.
func (p *Proxy) refuses(method, authorization string) bool {
	token, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if method == refreshSession {
		revoked := p.revoked
		p.revoked = false
		return revoked
	}
	p.token = token
	return p.expired[token]
}

// meet returns the fault of a call and a channel that is closed when it ends; nil: the
// call succeeds.
func (p *Proxy) meet(method string) (*Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil || p.fault.Method != "" && p.fault.Method != method {
		return nil, nil
	}
	p.hits++
	return p.fault, p.ended
}

// An answer is a response of the target.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// deliver sends the call to the target, also if the client goes away meanwhile, and
// returns the response. If there is none, the client gets none either.
func (p *Proxy) deliver(r *http.Request, method string, input []byte) *answer {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	call := Call{Method: method, Input: input}
	a, err := p.forward(r, input)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		panic(http.ErrAbortHandler) // the target is not running
	}
	if err == nil {
		call.Status, call.Output = a.status, a.body
	}
	p.observe(call)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return a
}

func (p *Proxy) forward(r *http.Request, input []byte) (*answer, error) {
	q := r.Clone(context.WithoutCancel(r.Context()))
	q.URL.Scheme, q.URL.Host, q.Host, q.RequestURI = p.target.Scheme, p.target.Host, p.target.Host, ""
	q.Body, q.ContentLength = io.NopCloser(bytes.NewReader(input)), int64(len(input))
	q.Header.Del("Connection")
	res, err := p.transport.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length"} {
		res.Header.Del(name)
	}
	return &answer{res.StatusCode, res.Header, body}, nil
}
