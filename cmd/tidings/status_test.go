package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/middleware/admin"
)

// The command status shows a running registry, also after it was killed, and says that one is stopped.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	stopped := func() {
		t.Helper()
		out, code := s.run("status", s.config)
		if code != 2 || !strings.Contains(out, "the registry is not running") || !strings.Contains(out, "tidings serve "+s.config) {
			t.Errorf("stopped: exit code %d\n%s", code, out)
		}
	}
	stopped()
	for range 2 {
		s.start()
		s.push(t, "oss/app", "v1", newImage(2))
		s.waitDrained()
		for _, path := range []string{"/tidings/live", "/tidings/ready"} {
			if res, body, err := s.do("GET", path, "", nil); err != nil || res.StatusCode != 200 {
				t.Errorf("%s: %v %v %s", path, res, err, body)
			}
		}
		out, code := s.run("status", s.config)
		if code != 0 {
			t.Errorf("healthy: exit code %d\n%s", code, out)
		}
		for _, want := range []string{"status ", "records (pushes): ok, nothing pending", "hold ", unescaped(s.did), `public: "oss/**"`, "free for "} {
			if !strings.Contains(out, want) {
				t.Errorf("missing %q:\n%s", want, out)
			}
		}
		out, code = s.run("status", "--json", s.config)
		var status admin.Status
		if err := json.Unmarshal([]byte(out), &status); err != nil || code != 0 || status.Status != admin.OK || len(status.Sinks) != 4 {
			t.Errorf("--json: exit code %d, %v\n%s", code, err, out)
		}
		s.kill()
		stopped()
	}
	s.start()
	s.stop()
	if _, err := os.Lstat(filepath.Join(s.dir, "tidings", admin.SocketName)); !os.IsNotExist(err) {
		t.Errorf("the socket after the end: %v", err)
	}
	stopped()
}
