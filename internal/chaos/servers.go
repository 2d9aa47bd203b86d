package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/faultproxy"
	"github.com/tidings-dev/tidings/internal/interop/pds"
	"github.com/tidings-dev/tidings/internal/process"
)

// startTimeout bounds the start of the registry.
const startTimeout = time.Minute

// servers are a registry, the PDS of its account, and a proxy between them.
type servers struct {
	dir      string // of all files
	program  string // tidings
	host     string // of the registry, with its port
	pds      *pds.Server
	proxy    *faultproxy.Proxy
	tally    *tally
	calls    chan struct{} // a value for a call of applyWrites that has just begun
	registry *process.Process
	log      *os.File // of the registry
}

// maxWaitCall is how long the next call of applyWrites may take to begin. The registry
// makes none while it waits for the end of a limit.
const maxWaitCall = 3 * time.Second

const token = "chaos-token-0123456789" // of the registry's API

// start starts everything, with files in dir.
func start(ctx context.Context, root, dir string) (s *servers, err error) {
	s = &servers{dir: dir, tally: newTally(), calls: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if err := pds.Install(ctx, root); err != nil {
		return nil, err
	}
	if s.program, err = pds.Build(ctx, root, dir); err != nil {
		return nil, err
	}
	proxy, service, err := listen()
	if err != nil {
		return nil, err
	}
	directoryListener, plc, err := listen()
	if err != nil {
		return nil, err
	}
	go func() { _ = http.Serve(directoryListener, newDirectory(service)) }()
	if s.pds, err = pds.StartReference(ctx, root, filepath.Join(dir, "pds"), "PDS_DID_PLC_URL="+plc); err != nil {
		return nil, err
	}
	if s.proxy, err = faultproxy.New(s.pds.URL, s.tally.add); err != nil {
		return nil, err
	}
	go func() { _ = http.Serve(proxy, s) }()
	if err := s.configure(ctx, service, plc); err != nil {
		return nil, err
	}
	return s, s.startRegistry(ctx)
}

// ServeHTTP passes the registry's calls to the proxy.
func (s *servers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/xrpc/"+applyWrites {
		select {
		case s.calls <- struct{}{}:
		default:
		}
	}
	s.proxy.ServeHTTP(w, r)
}

// waitCall returns when a call of applyWrites began d ago, or if none begins for a while.
func (s *servers) waitCall(ctx context.Context, d time.Duration) {
	select {
	case <-s.calls: // of an earlier call
	default:
	}
	select {
	case <-s.calls:
		wait(ctx, d)
	case <-time.After(maxWaitCall):
	case <-ctx.Done():
	}
}

// listen returns a listener on loopback and its base URL. The PDS accepts no address as
// the host of a service.
func listen() (l net.Listener, url string, err error) {
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return l, "http://localhost:" + port, err
}

// configure writes the registry's configuration and its secrets. The account's service is
// the proxy.
func (s *servers) configure(ctx context.Context, service, plc string) error {
	addr, err := process.FreeAddr()
	if err != nil {
		return err
	}
	s.host = addr
	password, err := appPassword(ctx, s.pds)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/registry}, maintenance: {uploadpurging: {enabled: false}}}
http: {addr: %[2]q, secret: chaos, draintimeout: 5s}
middleware:
  repository:
    - name: tidings
      options:
        data: %[1]s/data
        public: ["oss/**"]
        account:
          service: %[3]q
          identifier: %[4]s
          password_file: %[1]s/app-password
          plc: %[5]q
          budget: {hour: off, day: off}
        announce: {tags: ["*"], collect: 0s}
        stats: {records: off}
        api: {token_file: %[1]s/token}
`, s.dir, addr, service, pds.Handle, plc)
	for name, content := range map[string]string{"app-password": password, "token": token, "config.yml": config} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	s.log, err = os.Create(filepath.Join(s.dir, "registry.log"))
	return err
}

// appPassword creates an app password, as an owner of an account does for a program.
func appPassword(ctx context.Context, s *pds.Server) (string, error) {
	access, _, err := s.Login(ctx)
	if err != nil {
		return "", err
	}
	var created struct{ Password string }
	err = call(ctx, http.MethodPost, s.URL+"/xrpc/com.atproto.server.createAppPassword", access, []byte(`{"name":"tidings"}`), &created)
	return created.Password, err
}

// startRegistry starts the registry and waits until it responds.
func (s *servers) startRegistry(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd := exec.Command(s.program, "serve", filepath.Join(s.dir, "config.yml"))
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	var err error
	if s.registry, err = process.Start("tidings", cmd); err != nil {
		return err
	}
	err = s.registry.WaitReady(ctx, func() error {
		return call(ctx, http.MethodGet, "http://"+s.host+"/v2/", "", nil, nil)
	})
	if err != nil {
		s.printLog(os.Stdout)
	}
	return err
}

// backlog is what the registry's sinks have to do.
type backlog struct {
	pending     uint64
	deadLetters int
}

// backlog asks the registry's API.
func (s *servers) backlog(ctx context.Context) (backlog, error) {
	var health struct {
		Sinks []struct {
			Depth       uint64
			DeadLetters int
		}
	}
	err := call(ctx, http.MethodGet, "http://"+s.host+"/tidings/api/v1/health", token, nil, &health)
	var sum backlog
	for _, sink := range health.Sinks {
		sum.pending += sink.Depth
		sum.deadLetters += sink.DeadLetters
	}
	return sum, err
}

// logLines is how many lines of the registry's log are printed after a failed run.
const logLines = 40

// printLog prints the end of the registry's log, without the responses that the
// distribution registry logs as errors, such as that a blob is not there yet.
func (s *servers) printLog(out io.Writer) {
	content, err := os.ReadFile(s.log.Name())
	if err != nil {
		fmt.Fprintln(out, err)
		return
	}
	lines := slices.DeleteFunc(bytes.SplitAfter(content, []byte("\n")), func(line []byte) bool {
		return bytes.Contains(line, []byte("response completed with error"))
	})
	for _, line := range lines[max(0, len(lines)-logLines):] {
		fmt.Fprintf(out, "registry: %s", line)
	}
}

// stop stops what runs.
func (s *servers) stop() {
	if s.registry != nil {
		_ = s.registry.Stop()
	}
	if s.pds != nil && s.pds.Process != nil {
		_ = s.pds.Stop()
	}
}

// call sends a request, with a bearer token and a JSON body unless they are empty, that
// must succeed, and decodes the response into out, unless that is nil.
func call(ctx context.Context, method, url, bearer string, input []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(input))
	if err != nil {
		return err
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	if input != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: %s %.300s", method, url, res.Status, content)
	case out == nil:
		return nil
	}
	return json.Unmarshal(content, out)
}
