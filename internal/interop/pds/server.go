// Package pds starts the servers of interop tests and benchmarks as processes: a hold of
// the tidings program and the reference PDS (testdata/reference-pds), each with one account,
// and a registry that publishes to the account on the reference PDS. The caller provides
// and deletes the directory of their files.
package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"

	"github.com/tidings-dev/tidings/internal/process"
)

// Handle is the handle of the account on both servers.
const Handle = "alice.test"

// BypassKey, in the header x-ratelimit-bypass, exempts a request from the reference's
// rate limits.
const BypassKey = "bypass"

// Server is a running server and its account.
type Server struct {
	Name     string // "tidings" or "reference"
	URL      string // without a trailing slash
	DID      string
	Password string
	Debug    string // base URL of the hold's /debug/pprof
	PLC      string // URL of the PLC directory of the reference's account

	Secret []byte // key of the session tokens

	reference *reference // how the reference PDS is started
	*process.Process
}

// Login creates a session and returns its tokens.
func (s *Server) Login(ctx context.Context) (access, refresh string, err error) {
	input, _ := json.Marshal(map[string]string{"identifier": s.DID, "password": s.Password})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/xrpc/com.atproto.server.createSession", bytes.NewReader(input))
	if err != nil {
		return "", "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Ratelimit-Bypass", BypassKey)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("log in to %s: %d %s %w", s.Name, res.StatusCode, body, err)
	}
	var session struct{ AccessJwt, RefreshJwt string }
	err = json.Unmarshal(body, &session)
	return session.AccessJwt, session.RefreshJwt, err
}

// start starts cmd and waits until the server is healthy.
func (s *Server) start(ctx context.Context, cmd *exec.Cmd) (err error) {
	if s.Process, err = process.Start(s.Name, cmd); err != nil {
		return err
	}
	err = s.WaitReady(ctx, func() error {
		res, err := http.Get(s.URL + "/xrpc/_health")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("_health: %s", res.Status)
		}
		return nil
	})
	if err != nil {
		_ = s.Stop()
	}
	return err
}

// freePorts returns n free ports.
func freePorts(n int) (ports []string, err error) {
	for range n {
		addr, err := process.FreeAddr()
		if err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
