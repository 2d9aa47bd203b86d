package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mountHold moves the hold's folder to a file system in the mount namespace of the
// process, whose changes are lost with it.
func (s *server) mountHold(megabytes int, option string) {
	s.t.Helper()
	needNamespaces(s.t)
	folder, mounted := filepath.Join(s.dir, "tidings", "hold"), filepath.Join(s.dir, "disk")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.wrap = []string{"unshare", "-rm", "sh", "-c", fmt.Sprintf(
		`mount -t tmpfs -o size=%[1]dm tmpfs %[3]s && cp -a %[4]s/. %[3]s && mount -o remount,%[2]s %[3]s && mount --bind %[3]s %[4]s && exec "$@"`,
		megabytes, option, mounted, folder), "sh"}
}

// holdHealth returns the status of the registry and of the hold.
func (s *server) holdHealth() (registry, hold, reason string) {
	s.t.Helper()
	var answer struct {
		Status string
		Hold   struct{ Status, Reason string }
	}
	s.json(s.t, "/tidings/api/v1/health", &answer)
	return answer.Status, answer.Hold.Status, answer.Hold.Reason
}

// checkHoldFailing checks that health reports the hold as failing, with a reason that
// has no file name.
func (s *server) checkHoldFailing(want string) {
	s.t.Helper()
	registry, hold, reason := s.holdHealth()
	if registry != "degraded" || hold != "failing" || !strings.Contains(reason, want) || strings.Contains(reason, s.dir) {
		s.t.Errorf("health: the registry is %s, the hold %s: %q, want %q", registry, hold, reason, want)
	}
}

// pushAndPull checks that pushes and pulls work.
func (s *server) pushAndPull(tags ...string) {
	s.t.Helper()
	for _, tag := range tags {
		s.push(s.t, "oss/app", tag, newImage(2))
		if status, err := s.get("oss/app", tag); err != nil || status != http.StatusOK {
			s.t.Errorf("pull: %d %v", status, err)
		}
	}
}

// checkXRPC checks the status and the error name of a request to the hold.
func (s *server) checkXRPC(method, path string, body any, status int, name string, header ...string) {
	s.t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	res, answer, err := s.do(method, "/xrpc/"+path, "application/json", content, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	var problem struct{ Error, Message string }
	_ = json.Unmarshal(answer, &problem) // other responses have no error
	if res.StatusCode != status || problem.Error != name || name != "" && len(problem.Message) < 10 {
		s.t.Errorf("%s: %s %s, want %d %s", path, res.Status, answer, status, name)
	}
}

// note returns an input of createRecord.
func (s *server) note(key string) map[string]any {
	return map[string]any{"repo": unescaped(s.did), "collection": "com.example.note", "rkey": key, "record": map[string]any{"text": key}}
}

// waitForLog waits until the text is logged.
func (s *server) waitForLog(text string) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(s.log.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Errorf("not logged: %q\n%s", text, s.log)
			return
		}
	}
}

const noteRecord = "com.atproto.repo.getRecord?collection=com.example.note&repo="

// On a full disk the hold refuses writes and serves reads. Pushes are accepted, and their
// records are written when there is free space.
func TestHoldDiskFull(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.allowLogin()
	s.mountHold(64, "rw")
	s.start()
	session := s.login()
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("before"), http.StatusOK, "", session...)

	filler := filepath.Join("/proc", fmt.Sprint(s.cmd.Process.Pid), "root", s.dir, "tidings", "hold", "filler")
	fill(t, filler)
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("during"), http.StatusInsufficientStorage, "InsufficientStorage", session...)
	s.checkXRPC("GET", noteRecord+s.did+"&rkey=before", nil, http.StatusOK, "")
	s.checkXRPC("GET", noteRecord+s.did+"&rkey=during", nil, http.StatusBadRequest, "RecordNotFound")
	s.pushAndPull("a", "b", "c")
	s.waitForLog("too little free disk space")
	s.checkHoldFailing("too little free disk space")
	s.verifyRepo()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("after"), http.StatusOK, "", session...)
	s.waitDrained()
	s.checkTotals(t, map[string]int{"oss/app": 3}, 6, 3)
	s.stop()
}

// With the hold on a read-only disk the registry starts and accepts pushes, and the hold
// reports that it is unavailable. The next start with a writable disk writes the
// records.
func TestHoldDiskReadOnly(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.mountHold(64, "ro")
	s.start()
	s.waitForLog("read-only file system")
	s.pushAndPull("a", "b")
	s.checkHoldFailing("cannot be opened")
	s.publicKey()
	s.checkXRPC("GET", "com.atproto.sync.getRepo?did="+s.did, nil, http.StatusServiceUnavailable, "ServiceUnavailable")
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("during"), http.StatusServiceUnavailable, "ServiceUnavailable")
	s.stop()
	s.wrap = nil
	s.start()
	s.waitDrained()
	s.checkTotals(t, map[string]int{"oss/app": 2}, 4, 2)
	if registry, hold, _ := s.holdHealth(); registry != "ok" || hold != "ok" {
		t.Errorf("health: the registry is %s, the hold %s", registry, hold)
	}
}
