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
	"time"

	"github.com/tidings-dev/tidings/internal/process"
)

// A server is one registry process under measurement.
type server struct {
	*process.Process
	name   string
	addr   string
	next   atomic.Int64 // number of the next operation, never used twice
	busy   int          // turns after which it did not become idle in time
	idleMB float64      // memory before the load
}

// common returns the configuration that all registries share.
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

// startAll starts plain, tidings (or plain again) and plain with notifications. The
// caller must call closeAll, also after an error.
func startAll(ctx context.Context, o options, disk, memory string) (servers []*server, closeAll func(), err error) {
	closeAll = func() {
		for _, s := range servers {
			_ = s.Stop()
		}
	}
	start := func(name, binary string, more func(addr string) string) error {
		addr, err := process.FreeAddr()
		if err != nil {
			return err
		}
		s, err := startServer(ctx, name, binary, addr, common(addr, filepath.Join(memory, name))+more(addr), disk)
		if err != nil {
			return err
		}
		servers = append(servers, s)
		return nil
	}

	nothing := func(string) string { return "" }
	if err := start("plain", o.plain, nothing); err != nil {
		return servers, closeAll, err
	}

	if o.tidings == "" {
		err = start("plain again", o.plain, nothing)
	} else {
		err = start("tidings", o.tidings, func(addr string) string {
			more := ""
			if !o.counting {
				more = withHold(addr)
			}
			return middleware(filepath.Join(disk, "data"), more)
		})
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
	err = start("notifications", o.plain, func(string) string { return notifications("http://" + l.Addr().String() + "/") })
	return servers, closeAll, err
}

// startServer creates a hold, if the configuration has one, and starts the server.
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

// serveOnly starts the server and waits until it responds.
func serveOnly(ctx context.Context, name, binary, addr, config, disk string) (*server, error) {
	file, err := configFile(disk, name, config)
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	cmd := exec.Command(binary, "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.Stdout, cmd.Stderr = &output, &output
	s := &server{name: name, addr: addr}
	if s.Process, err = process.Start(name, cmd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = s.WaitReady(ctx, func() error {
		c := dial(addr)
		defer c.Close()
		_, err := c.do("GET", "/v2/", "", nil, http.StatusOK)
		return err
	})
	if err != nil {
		_ = s.Stop()
		return nil, fmt.Errorf("%w: %s", err, &output)
	}
	return s, nil
}

// memoryMB returns the resident memory in MB.
func (s *server) memoryMB() float64 {
	current, _ := s.Memory()
	return float64(current) / 1e6
}
