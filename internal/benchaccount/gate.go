package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

// callsPerTurn is how many calls of applyWrites the registry and the client make in turn.
const callsPerTurn = 5

// A gate is a proxy in front of the PDS, and of its PLC directory, through which the
// registry makes its calls. After some calls of applyWrites it holds the registry's next
// one until the client has made as many. So the two take turns, and both are measured
// while the machine is equally busy. A turn of the registry ends when its next call
// arrives, so the time between its calls is part of it.
type gate struct {
	url    string // of the proxy
	pds    *pds.Server
	client *client
	proxy  *httputil.ReverseProxy

	mu       sync.Mutex
	calls    int    // in this turn
	turn     sample // this turn
	begun    time.Time
	cpu      time.Duration // of the PDS when the turn began
	registry sample        // complete turns
	alone    sample        // of the client
	err      error         // of the client
}

func newGate(s *pds.Server, c *client) (*gate, error) {
	target, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	g := &gate{url: "http://localhost:" + port, pds: s, client: c, proxy: httputil.NewSingleHostReverseProxy(target)}
	go func() { _ = http.Serve(l, g) }()
	return g, nil
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/did:"):
		g.document(w, r)
		return
	case r.URL.Path == "/xrpc/com.atproto.repo.applyWrites":
		input, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(input))
		g.pass(r.Context(), bytes.Count(input, []byte("applyWrites#create")))
	}
	g.proxy.ServeHTTP(w, r)
}

// document serves the DID document of the account, in which the proxy is the PDS.
func (g *gate) document(w http.ResponseWriter, r *http.Request) {
	res, err := http.Get(g.pds.PLC + r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(bytes.ReplaceAll(content, []byte(g.pds.URL), []byte(g.url)))
}

// pass returns when the registry may make a call that creates n records.
func (g *gate) pass(ctx context.Context, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls == callsPerTurn {
		g.turn.duration, g.turn.cpu = time.Since(g.begun), g.pds.CPU()-g.cpu
		g.registry.add(g.turn)
		got, err := g.client.write(ctx, callsPerTurn)
		if err != nil {
			g.err = fmt.Errorf("client: %w", err)
			return
		}
		g.alone.add(got)
		g.calls = 0
	}
	if g.calls == 0 {
		g.turn, g.begun, g.cpu = sample{}, time.Now(), g.pds.CPU()
	}
	g.calls++
	g.turn.records += n
}

// result returns the complete turns of the registry and those of the client.
func (g *gate) result() (registry, alone sample, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil && g.alone.records == 0 {
		return registry, alone, fmt.Errorf("the backlog is too small for a turn of %d calls", callsPerTurn)
	}
	return g.registry, g.alone, g.err
}
