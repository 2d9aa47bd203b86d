package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
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
)

// server is this program, run as its users run it, in a process of its own.
type server struct {
	*client
	t      *testing.T
	dir    string
	config string
	did    string
	cmd    *exec.Cmd
	log    *logged
	env    []string // of the process, beside the usual
	wrap   []string // a command that the process is started through
}

// logged is what a process printed, readable while it runs.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// settings fill in the configuration of a server.
type settings struct {
	options string // further lines of the options, indented as in the file
	host    string // further sections of the file
	storage string // further lines under storage:
}

// newServer writes a configuration and makes the account; it starts nothing.
func newServer(t *testing.T, s settings) *server {
	t.Helper()
	dir := t.TempDir()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	hostname := "localhost:" + port
	file := filepath.Join(dir, "config.yml")
	if s.options == "" {
		s.options = "announce: {tags: [\"*\"], collect: 300ms}"
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
        hold: {hostname: "%[3]s", reserve: 1MiB}
        api: {token_file: %[1]s/token}
        %[5]s
%[6]s
`, dir, addr, hostname, s.storage, strings.ReplaceAll(s.options, "\n", "\n        "), s.host)
	write(t, file, yaml)
	write(t, filepath.Join(dir, "token"), "let me see everything 0123456789")
	srv := &server{t: t, client: newClient(addr), dir: dir, config: file, did: "did:web:localhost%253A" + port}
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

// freeAddr has a port below those that systems give to who asks for any: nobody
// else gets it before the server begins, or while it is dead.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// command runs this program: the test binary, told to be it.
func (s *server) command(args ...string) *exec.Cmd {
	line := append(append([]string{}, s.wrap...), append([]string{os.Args[0]}, args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(append(os.Environ(), beProgram+"=1"), s.env...)
	return cmd
}

// start serves, and returns when requests are answered.
func (s *server) start() {
	s.t.Helper()
	s.log = &logged{}
	s.cmd = s.command("serve", s.config)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.kill)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		res, err := http.Get("http://" + s.host + "/v2/")
		if err == nil {
			res.Body.Close()
			return
		}
		if time.Now().After(end) || s.dead() {
			s.t.Fatalf("it does not answer: %v\n%s", err, s.log)
		}
	}
}

func (s *server) dead() bool { return s.cmd.Process.Signal(syscall.Signal(0)) != nil }

// kill is kill -9.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
	s.http.CloseIdleConnections()
}

// stop is what an operator's service manager does.
func (s *server) stop() {
	s.t.Helper()
	if err := s.terminate(); err != nil {
		s.t.Errorf("it ended with %v\n%s", err, s.log)
	}
}

// terminate stops it and gives what it ended with.
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
		s.t.Errorf("it does not stop\n%s", s.log)
		s.cmd.Process.Kill()
		return <-ended
	}
}

// drained waits until no event waits for a sink.
func (s *server) drained() {
	s.t.Helper()
	var health struct {
		Sinks []struct {
			Depth uint64 `json:"depth"`
		} `json:"sinks"`
	}
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.json(s.t, "/tidings/api/v1/health", &health, s.token()...)
		var waiting uint64
		for _, sink := range health.Sinks {
			waiting += sink.Depth
		}
		if len(health.Sinks) > 0 && waiting == 0 {
			return
		}
	}
	s.t.Fatalf("the sinks do not end: %+v\n%s", health, s.log)
}

// token is the header that shows every repository.
func (s *server) token() []string {
	return []string{"Authorization", "Bearer let me see everything 0123456789"}
}
