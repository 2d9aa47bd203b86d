package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A server is one registry process under measurement.
type server struct {
	name    string
	addr    string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process is gone
	next    atomic.Int64  // number of the next operation, never used twice
	busy    int           // turns after which it did not become idle in time
	rssIdle int64
}

// common is the configuration that all registries share.
func common(addr, storage string) string {
	return fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: %q, secret: bench, draintimeout: 5s}
`, storage, addr)
}

func notifications(sink string) string {
	return fmt.Sprintf(`notifications:
  endpoints:
    - {name: sink, url: %q, timeout: 1s, threshold: 5, backoff: 1s}
`, sink)
}

func middleware(data, more string) string {
	return fmt.Sprintf(`middleware:
  repository:
    - name: tidings
      options:
        data: %q
%s`, data, more)
}

func withHold(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf(`        public: ["**"]
        hold: {hostname: "localhost:%s"}
`, port)
}

// startAll starts plain, tidings (or plain again) and plain with
// notifications. closeAll is to be called also after an error.
func startAll(ctx context.Context, o options, disk, memory string) (servers []*server, closeAll func(), err error) {
	closeAll = func() {
		for _, s := range servers {
			s.stop()
		}
	}
	start := func(name, binary, addr, more string) error {
		s, err := startServer(ctx, name, binary, addr, common(addr, filepath.Join(memory, name))+more, disk)
		if err != nil {
			return err
		}
		servers = append(servers, s)
		return nil
	}

	if err := start("plain", o.plain, freeAddr(), ""); err != nil {
		return servers, closeAll, err
	}

	addr := freeAddr()
	if o.tidings == "" {
		err = start("plain again", o.plain, addr, "")
	} else {
		more := ""
		if !o.counting {
			more = withHold(addr)
		}
		err = start("tidings", o.tidings, addr, middleware(filepath.Join(disk, "data"), more))
	}
	if err != nil {
		return servers, closeAll, err
	}

	sink := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return servers, closeAll, err
	}
	go func() { _ = sink.Serve(l) }()
	stopServers := closeAll
	closeAll = func() { stopServers(); _ = sink.Close() }
	err = start("notifications", o.plain, freeAddr(), notifications("http://"+l.Addr().String()+"/"))
	return servers, closeAll, err
}

// startServer makes a hold if the configuration has one, and serves.
func startServer(ctx context.Context, name, binary, addr, config, disk string) (*server, error) {
	if strings.Contains(config, " hold: ") {
		file, err := configFile(disk, name, config)
		if err != nil {
			return nil, err
		}
		if out, err := exec.CommandContext(ctx, binary, "hold", "init", file).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s hold init: %w\n%s", name, err, out)
		}
	}
	return serveOnly(ctx, name, binary, addr, config, disk)
}

func configFile(disk, name, config string) (string, error) {
	file := filepath.Join(disk, strings.ReplaceAll(name, " ", "-")+".yml")
	return file, os.WriteFile(file, []byte(config), 0o600)
}

// serveOnly starts the process and waits until it answers.
func serveOnly(ctx context.Context, name, binary, addr, config, disk string) (*server, error) {
	file, err := configFile(disk, name, config)
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: addr, done: make(chan struct{})}
	output := new(bytes.Buffer)
	s.cmd = exec.Command(binary, "serve", file)
	s.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	s.cmd.Stdout, s.cmd.Stderr = output, output
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()

	for range 300 {
		select {
		case <-s.done:
			return nil, fmt.Errorf("%s ended at once: %s", name, output)
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		c := dial(addr)
		_, err := c.do("GET", "/v2/", "", nil, http.StatusOK)
		c.Close()
		if err == nil {
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s does not answer after 30 s: %s", name, output)
}

// stop ends the process, politely first.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// settle waits until the process rests: until it has used less than a fiftieth
// of a core for as long as rest, without a break. It gives up after limit and
// returns whether the process rested.
func (s *server) settle(ctx context.Context, rest, limit time.Duration) bool {
	const step = 40 * time.Millisecond
	rested := time.Duration(0)
	for waited := time.Duration(0); waited < limit; waited += step {
		before := cpuTime(s.cmd.Process.Pid)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(step):
		}
		if cpuTime(s.cmd.Process.Pid)-before >= step/50 {
			rested = 0
			continue
		}
		if rested += step; rested >= rest {
			return true
		}
	}
	return false
}

// freeAddr names a port that was free a moment ago.
func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:5000"
	}
	defer l.Close()
	return l.Addr().String()
}
