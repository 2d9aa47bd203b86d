// Package pds starts the two servers that compare and benchhold talk to, each
// as a process of its own: the hold of the tidings program, and the reference
// PDS (testdata/reference-pds), with one account on both. Their files go to
// the directory that the caller gives, and are the caller's to delete.
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
	"syscall"
	"time"
)

// Handle is the account's at both servers.
const Handle = "alice.test"

// BypassKey, in the header x-ratelimit-bypass, spares a call to the reference
// its rate limits.
const BypassKey = "bypass"

// Server is a running server and its account.
type Server struct {
	Name     string // "tidings" or "reference"
	URL      string // without a slash at its end
	DID      string
	Password string
	Debug    string // the URL of the hold's /debug/pprof
	PLC      string // the URL of the directory that the reference's account is in

	Secret []byte // what signs the session tokens

	cmd  *exec.Cmd
	done chan error
}

// PID is that of the process that serves.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop ends the server, and waits for it.
func (s *Server) Stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.done:
		return err
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		return fmt.Errorf("%s does not end when told to", s.Name)
	}
}

// Login is a new session's tokens.
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

// start runs cmd; what it says on stderr is in the error if it ends early.
func (s *Server) start(cmd *exec.Cmd) error {
	s.cmd, s.done = cmd, make(chan error, 1)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	go func() { s.done <- cmd.Wait() }()
	return nil
}

// ready waits until the server answers.
func (s *Server) ready(ctx context.Context) error {
	for {
		res, err := http.Get(s.URL + "/xrpc/_health")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("%s ended while it started: %w", s.Name, err)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", s.Name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freePort is a port that nobody listens on, for a process that is yet to be
// started.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errAnd(err, l.Close())
}

func errAnd(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
