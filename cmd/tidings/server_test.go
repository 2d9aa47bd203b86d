package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/process"
)

// server is the program running as a process.
type server struct {
	*client
	t      *testing.T
	dir    string
	config string
	did    string
	cmd    *exec.Cmd
	log    *logBuffer
	env    []string // additional environment of the process
	wrap   []string // prefix of the command line, such as unshare
}

// logBuffer has the output of a process, readable while it runs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// settings extend the configuration of a server.
type settings struct {
	account string // the account section, instead of a hold
	remote  string // DID of the hold that pushes are reported to, instead of a hold
	options string // more options
	host    string // more sections
	storage string // more lines under storage:
}

// defaultOptions are those of a server without options of its own.
const defaultOptions = `announce: {tags: ["*"], collect: 300ms, cooldown: 0s, daily_limit: 0}`

// newServer writes a configuration and creates the hold. It does not start the server.
func newServer(t *testing.T, s settings) *server {
	t.Helper()
	dir := t.TempDir()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	hostname := "localhost:" + port
	file := filepath.Join(dir, "config.yml")
	writer := fmt.Sprintf("hold: {hostname: %q, reserve: 1MiB}", hostname)
	if s.account != "" {
		writer = "account: " + s.account
	}
	if s.remote != "" {
		writer = fmt.Sprintf("remote: {hold: %q, hostname: %q, pulls: true}", s.remote, hostname)
	}
	if s.options == "" && s.remote != "" {
		s.options = "reserve: 1MiB"
	}
	if s.options == "" {
		s.options = defaultOptions
	}
	yaml := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %[1]s/registry}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
%[4]s
http:
  addr: "%[2]s"
  draintimeout: 10s
middleware:
  repository:
    - name: tidings
      options:
        data: %[1]s/tidings
        public: ["oss/**"]
        %[3]s
        api: {token_file: %[1]s/token}
        %[5]s
%[6]s
`, dir, addr, writer, s.storage, strings.ReplaceAll(s.options, "\n", "\n        "), s.host)
	write(t, file, yaml)
	write(t, filepath.Join(dir, "token"), "let me see everything 0123456789")
	srv := &server{t: t, client: newClient(addr), dir: dir, config: file, did: "did:web:localhost%253A" + port}
	if s.account != "" || s.remote != "" {
		return srv
	}
	out, err := srv.command("hold", "init", file).CombinedOutput()
	if err != nil {
		t.Fatalf("hold init: %v\n%s", err, out)
	}
	return srv
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := process.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// command returns a command of the program, which is the test binary with runMain.
func (s *server) command(args ...string) *exec.Cmd {
	line := append(append([]string{}, s.wrap...), append([]string{os.Args[0]}, args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(append(os.Environ(), runMain+"=1"), s.env...)
	return cmd
}

// start starts the server and waits until it responds.
func (s *server) start() {
	s.t.Helper()
	s.startWith("/v2/", "serve", s.config)
}

// startHold starts the server without the registry.
func (s *server) startHold() {
	s.t.Helper()
	s.startWith("/.well-known/did.json", "hold", "serve", s.config)
}

// startWith starts a command and waits until it responds to a request for a path.
func (s *server) startWith(path string, command ...string) {
	s.t.Helper()
	s.log = &logBuffer{}
	s.cmd = s.command(command...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.kill)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		res, err := http.Get("http://" + s.host + path)
		if err == nil {
			res.Body.Close()
			return
		}
		if time.Now().After(end) || s.dead() {
			s.t.Fatalf("the server does not respond: %v\n%s", err, s.log)
		}
	}
}

func (s *server) dead() bool { return s.cmd.Process.Signal(syscall.Signal(0)) != nil }

// kill sends SIGKILL.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
	s.http.CloseIdleConnections()
}

// stop stops the server with SIGTERM, as a service manager does.
func (s *server) stop() {
	s.t.Helper()
	if err := s.terminate(); err != nil {
		s.t.Errorf("the server exited with %v\n%s", err, s.log)
	}
}

// terminate sends SIGTERM and returns the exit status.
func (s *server) terminate() error {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	defer func() {
		s.cmd = nil
		s.http.CloseIdleConnections()
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(20 * time.Second):
		s.t.Errorf("the server does not stop\n%s", s.log)
		s.cmd.Process.Kill()
		return <-ended
	}
}

// waitDrained waits until no event is pending.
func (s *server) waitDrained() {
	s.t.Helper()
	var health struct {
		Sinks []struct {
			Depth uint64 `json:"depth"`
		} `json:"sinks"`
	}
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.json(s.t, "/tidings/api/v1/health", &health, s.token()...)
		var pending uint64
		for _, sink := range health.Sinks {
			pending += sink.Depth
		}
		if len(health.Sinks) > 0 && pending == 0 {
			return
		}
	}
	s.t.Fatalf("events stay pending: %+v\n%s", health, s.log)
}

// token is the header that gives access to every repository.
func (s *server) token() []string {
	return []string{"Authorization", "Bearer let me see everything 0123456789"}
}
