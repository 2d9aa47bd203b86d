package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// A record that the account refuses becomes a dead letter. Once the cause is mended, a
// retry writes it once, also if the process is killed during the retry.
func TestDeadRetry(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.start()
	refuse := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".applyWrites") {
			sendError(w, 400, "InvalidRequest", "Invalid record at $.writes[0].value")
			return
		}
		s.pds.mu.Lock()
		defer s.pds.mu.Unlock()
		s.pds.serve(w, r)
	}
	s.pds.set(func(p *fakePDS) { p.fault = refuse })
	s.push(t, "oss/app", "v1", newImage(2))
	s.waitDrained()
	out, code := s.run("dead", "list", s.config, "--sink", "records")
	name, _, _ := strings.Cut(out, " ")
	if code != 0 || !strings.HasPrefix(name, "records/") || !strings.Contains(out, "push oss/app:v1@sha256:") {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	if out, code := s.run("status", s.config); code != 1 || !strings.Contains(out, "has given up events") {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	if out, code := s.run("dead", "show", s.config, name); code != 0 || !strings.Contains(out, `"event": {`) {
		t.Errorf("show: exit code %d\n%s", code, out)
	}
	if out, code := s.run("dead", "drop", s.config, name, "records"); code == 0 || !strings.Contains(out, `"records" is no name`) || strings.Contains(out, "is dropped") {
		t.Errorf("with an invalid name: exit code %d\n%s", code, out)
	}
	s.pds.set(func(p *fakePDS) { p.fault = http.NotFound }) // the retry stays pending
	if out, code := s.run("dead", "retry", s.config, name); code != 0 {
		t.Fatalf("retry: exit code %d\n%s", code, out)
	}
	if out, code := s.run("dead", "retry", s.config, name); code == 0 || !strings.HasSuffix(out, "Error: the dead letter is being retried: "+name+"\n") {
		t.Errorf("the second retry: exit code %d\n%s", code, out)
	}
	s.kill()
	if out, code := s.run("dead", "list", s.config); code == 0 || !strings.Contains(out, "not running") {
		t.Errorf("list of a stopped registry: exit code %d\n%s", code, out)
	}
	s.pds.set(func(p *fakePDS) { p.fault = nil })
	s.start()
	for end := time.Now().Add(30 * time.Second); s.pds.count("io.atcr.hold.layer") < 2 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
	}
	s.waitDrained()
	if n := s.pds.count("io.atcr.hold.layer"); n != 2 {
		t.Errorf("%d layer records, want 2", n)
	}
	if out, code := s.run("dead", "list", s.config, "--sink", "records"); code != 0 || out != noLetters {
		t.Errorf("after the retry: exit code %d\n%s", code, out)
	}
	if out, code := s.run("dead", "drop", s.config, name); code == 0 || out != "Error: no such dead letter: "+name+"\n" {
		t.Errorf("drop: exit code %d\n%s", code, out)
	}
}
