// Package redistest runs a real redis-server for a test and simulates failures: it is
// killed, restarted, flushed, or restored from an older dump. It is for tests only.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/process"
)

// Server is a redis-server without a password that writes to disk only when Dump is
// called.
type Server struct {
	Addr string // 127.0.0.1:port; the same after a restart

	t    testing.TB
	dir  string
	args []string
	log  bytes.Buffer
	cmd  *exec.Cmd
}

// Start starts a server that is stopped when the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t)
}

// StartCluster starts a cluster of one node, which has all slots and refuses commands
// with keys of two slots.
func StartCluster(t testing.TB) (*Server, *redis.ClusterClient) {
	t.Helper()
	s := start(t, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
	c := s.dial()
	defer c.Close()
	if err := c.ClusterAddSlotsRange(context.Background(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		info, err := c.ClusterInfo(context.Background()).Result()
		if err == nil && bytes.Contains([]byte(info), []byte("cluster_state:ok")) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the cluster does not start: %v\n%s", err, info)
		}
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.Addr}})
	t.Cleanup(func() { client.Close() })
	return s, client
}

func start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("this test needs redis-server: apt-get install redis-server, or brew install redis")
	}
	s := &Server{t: t, dir: t.TempDir(), args: args}
	t.Cleanup(s.Kill)
	var err error
	for range 5 { // another test may take the free port before Redis does
		if s.Addr, err = process.FreeAddr(); err != nil {
			t.Fatal(err)
		}
		if err = s.start(); err == nil {
			return s
		}
		s.Kill()
	}
	t.Fatalf("start redis-server: %v\n%s", err, s.log.String())
	return nil
}

func (s *Server) start() error {
	s.log.Reset()
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	s.cmd = exec.Command("redis-server", append([]string{"--port", port, "--bind", "127.0.0.1",
		"--dir", s.dir, "--save", "", "--appendonly", "no", "--daemonize", "no"}, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	client := s.dial()
	defer client.Close()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var info string
		info, err = client.Info(context.Background(), "server").Result()
		if err != nil {
			continue
		}
		if bytes.Contains([]byte(info), fmt.Appendf(nil, "process_id:%d\r", s.cmd.Process.Pid)) {
			return nil
		}
		return fmt.Errorf("another server has port %s", port)
	}
	return err
}

func (s *Server) dial() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, DialTimeout: time.Second})
}

// Client returns a client that is closed when the test ends.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr, DialTimeout: time.Second, MaxRetryBackoff: 20 * time.Millisecond})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Memory returns the memory in bytes that the keys matching a pattern use.
func (s *Server) Memory(pattern string) (bytes int64) {
	s.t.Helper()
	client := s.Client()
	keys, err := client.Keys(s.t.Context(), pattern).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, key := range keys {
		n, err := client.MemoryUsage(s.t.Context(), key, 0).Result()
		if err != nil {
			s.t.Fatal(err)
		}
		bytes += n
	}
	return bytes
}

// Kill kills the server. What Dump has not written is lost.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
}

// Restart kills the server if it runs, and starts it with what the last Dump or Restore
// has left on disk.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("restart redis-server: %v\n%s", err, s.log.String())
	}
}

// Flush deletes all keys.
func (s *Server) Flush() {
	s.t.Helper()
	c := s.dial()
	defer c.Close()
	if err := c.FlushAll(context.Background()).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// Dump writes all keys to disk and returns a copy of the file, for Restore.
func (s *Server) Dump() []byte {
	s.t.Helper()
	c := s.dial()
	defer c.Close()
	if err := c.Save(context.Background()).Err(); err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(s.dump())
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// Restore kills the server, replaces its dump, and starts it again.
func (s *Server) Restore(dump []byte) {
	s.t.Helper()
	s.Kill()
	if err := os.WriteFile(s.dump(), dump, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}

func (s *Server) dump() string { return filepath.Join(s.dir, "dump.rdb") }
