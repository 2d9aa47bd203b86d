package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// mountPersistentDisk moves the data folder, or a folder in it, to a small file system
// that stays mounted when the server ends. It returns the path of the folder for the
// test.
func (s *server) mountPersistentDisk(megabytes int, subfolder ...string) (folder string) {
	s.t.Helper()
	needNamespaces(s.t)
	data, copied := filepath.Join(append([]string{s.dir, "tidings"}, subfolder...)...), filepath.Join(s.dir, "copied")
	script := fmt.Sprintf(`cp -a %[2]s %[3]s && mount -t tmpfs -o size=%[1]dm tmpfs %[2]s && cp -a %[3]s/. %[2]s && echo ready && exec cat`, megabytes, data, copied)
	holder := exec.Command("unshare", "-rm", "sh", "-c", script)
	stdin, err := holder.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		s.kill()
		stdin.Close()
		holder.Wait()
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		s.t.Fatalf("mount: %v", err)
	}
	pid := fmt.Sprint(holder.Process.Pid)
	s.wrap = []string{"nsenter", "--preserve-credentials", "-U", "-m", "-t", pid}
	return filepath.Join("/proc", pid, "root", data)
}

// diskHealth returns the registry's status and the reasons reasons it is degraded.
func (s *server) diskHealth() (status, reasons string) {
	s.t.Helper()
	var answer struct {
		Status  string
		Reasons []string
	}
	s.json(s.t, "/tidings/api/v1/health", &answer)
	return answer.Status, strings.Join(answer.Reasons, "; ")
}

// eventually waits for a condition.
func eventually(t *testing.T, condition string, timeout time.Duration, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout of %s waiting for: %s", timeout, condition)
		}
	}
}

// metric returns the value of a sample from the debug server, or "".
func metric(t *testing.T, addr, sample string) string {
	t.Helper()
	res, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(body) {
		if value, ok := bytes.CutPrefix(line, []byte(sample+" ")); ok {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

// exists reports whether storage has the manifest.
func (s *server) exists(repository string, m image) bool {
	_, err := os.Stat(filepath.Join(s.dir, "registry/docker/registry/v2/repositories", repository, "_manifests/revisions/sha256", digest.Digest(m.digest).Encoded(), "link"))
	return err == nil
}

// The registry is killed while the disk of its data folder is full, and started again.
// Pulls are served and counted as lost, pushes and deletes are refused before they reach
// storage, and responses and health give the reason. When there is free space, all
// operations succeed without a restart, and no acknowledged push is missing.
func TestStartOnFullDisk(t *testing.T) {
	t.Parallel()
	debug := freeAddr(t)
	s := newServer(t, settings{})
	s.edit("  draintimeout: 10s", "  draintimeout: 10s\n  debug: {addr: \""+debug+"\", prometheus: {enabled: true}}")
	folder := s.mountPersistentDisk(64)
	s.start()
	before, during := newImage(2), newImage(1)
	s.push(t, "oss/app", "before", before)
	if err := s.upload("oss/app", during); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(folder, "filler")
	fill(t, filler)
	acknowledged := 1
	for i := range 2000 { // the journal has preallocated space
		status, err := s.put("oss/app", fmt.Sprint("full", i), during)
		if status == http.StatusServiceUnavailable {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		acknowledged++
	}
	for range 3 { // counted or lost
		if status, err := s.get("oss/app", "before"); status != http.StatusOK {
			t.Errorf("pull on a full disk: %d %v", status, err)
		}
	}
	s.kill()
	fill(t, filepath.Join(folder, "filler2")) // space that the killed process released

	s.start()
	process := s.cmd.Process.Pid
	for range 5 {
		if status, err := s.get("oss/app", "before"); status != http.StatusOK {
			t.Errorf("pull after the start on a full disk: %d %v", status, err)
		}
	}
	if got := metric(t, debug, `tidings_events_total{operation="pull",outcome="lost"}`); got != "5" {
		t.Errorf("%q pulls counted as lost, want 5", got)
	}
	checkRefused := func(request string, res *http.Response, body []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "UNAVAILABLE") || !strings.Contains(string(body), "the disk is full") {
			t.Errorf("%s: got %s %s, want 503 with the reason", request, res.Status, body)
		}
	}
	refused := newImage(1)
	if err := s.upload("oss/app", refused); err != nil {
		t.Fatal(err)
	}
	res, body, err := s.do("PUT", "/v2/oss/app/manifests/refused", refused.mediaType, refused.payload)
	checkRefused("push", res, body, err)
	if s.exists("oss/app", refused) {
		t.Error("storage has the manifest of the refused push")
	}
	for _, reference := range []string{before.digest, "before"} {
		res, body, err = s.do("DELETE", "/v2/oss/app/manifests/"+reference, "", nil)
		checkRefused("delete of "+reference, res, body, err)
	}
	for operation, want := range map[string]string{"push": "1", "delete": "2"} {
		if got := metric(t, debug, `tidings_requests_unrecorded_total{operation="`+operation+`"}`); got != want {
			t.Errorf("%q %s requests counted as refused, want %s", got, operation, want)
		}
	}
	if status, _ := s.get("oss/app", "before"); status != http.StatusOK || !s.exists("oss/app", before) {
		t.Errorf("pull after the refused delete: %d", status)
	}
	if status, reasons := s.diskHealth(); status != "degraded" || !strings.Contains(reasons, "the disk is full") || strings.Contains(reasons, s.dir) {
		t.Errorf("health: %s, %q", status, reasons)
	}
	if res, body, err := s.do("GET", "/tidings/api/v1/repositories", "", nil); err != nil || res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "the disk is full") {
		t.Errorf("API: %v %s %v", res, body, err)
	}
	s.checkXRPC("GET", "com.atproto.sync.getRepo?did="+s.did, nil, http.StatusServiceUnavailable, "ServiceUnavailable")
	s.publicKey()
	if !strings.Contains(s.log.String(), "the data folder cannot be opened") {
		t.Errorf("the log lacks the reason:\n%s", s.log)
	}

	for _, name := range []string{"filler", "filler2"} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "push accepted\n"+s.log.String(), 60*time.Second, func() bool {
		status, _ := s.put("oss/app", "after", refused)
		return status == http.StatusCreated
	})
	if status, err := s.get("oss/app", "after"); status != http.StatusOK {
		t.Errorf("pull with free space: %d %v", status, err)
	}
	s.waitDrained()
	if s.cmd.Process.Pid != process || s.dead() {
		t.Error("the process has changed")
	}
	if status, reasons := s.diskHealth(); status != "ok" {
		t.Errorf("health with free space: %s, %q", status, reasons)
	}
	// The push that failed on the full disk may be in storage, and is counted then.
	within(t, "pushes", int64(acknowledged+1), s.counts("oss/app").Pushes, int64(acknowledged+2))
	s.checkUnique(t, layerCollection, 2+1+1, func(r record) string { return fmt.Sprint(r.Value) })
	s.verifyRepo()
	if got := metric(t, debug, `tidings_events_total{operation="pull",outcome="lost"}`); got != "6" {
		t.Errorf("%q pulls counted as lost at the end, want 6", got)
	}
	res, body, err = s.do("DELETE", "/v2/oss/app/manifests/"+before.digest, "", nil)
	if err != nil || res.StatusCode != http.StatusAccepted {
		t.Errorf("delete with free space: %v %s %v", res, body, err)
	}
	s.waitDrained()
	s.checkUnique(t, layerCollection, 2, func(r record) string { return fmt.Sprint(r.Value) })
	s.stop()
}

// The server stops cleanly while it waits for free space.
func TestStopOnFullDisk(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	folder := s.mountPersistentDisk(32)
	fill(t, filepath.Join(folder, "filler"))
	s.start()
	if status, reasons := s.diskHealth(); status != "degraded" {
		t.Errorf("health: %s, %q", status, reasons)
	}
	s.stop()
}

// remount remounts the file system of mountPersistentDisk.
func (s *server) remount(option string) {
	s.t.Helper()
	line := append(append([]string{}, s.wrap...), "mount", "-o", "remount,"+option, filepath.Join(s.dir, "tidings"))
	if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
		s.t.Fatalf("remount: %v %s", err, out)
	}
}

// A data folder that is read-only at start is opened once it can be written.
func TestStartOnReadOnlyDisk(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.mountPersistentDisk(64)
	s.start()
	s.push(t, "oss/app", "before", newImage(2))
	s.waitDrained()
	s.stop()
	s.remount("ro")
	s.start()
	if status, err := s.get("oss/app", "before"); status != http.StatusOK {
		t.Errorf("pull: %d %v", status, err)
	}
	if status, reasons := s.diskHealth(); status != "degraded" || !strings.Contains(reasons, "the disk is read-only") {
		t.Errorf("health: %s, %q", status, reasons)
	}
	after := newImage(1)
	if err := s.upload("oss/app", after); err != nil {
		t.Fatal(err)
	}
	if status, err := s.put("oss/app", "after", after); status != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "the disk is read-only") {
		t.Errorf("push: %d %v", status, err)
	}
	s.remount("rw")
	eventually(t, "push accepted", 60*time.Second, func() bool {
		status, _ := s.put("oss/app", "after", after)
		return status == http.StatusCreated
	})
	s.waitDrained()
	s.checkTotals(t, map[string]int{"oss/app": 2}, 3, 2)
	s.stop()
}

// The start fails if the data folder is not writable, because waiting does not help.
func TestStartWithoutPermission(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	lock := filepath.Join(s.dir, "tidings", "lock")
	if err := os.RemoveAll(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(lock, 0o700); err != nil { // root can write any other file
		t.Fatal(err)
	}
	out, err := s.command("serve", s.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "write to the data folder") {
		t.Errorf("got %v: %s", err, out)
	}
}

// With the hold on a full disk of its own, pushes are accepted. The hold is opened when
// there is free space, and the records are written.
func TestStartHoldOnFullDisk(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	folder := s.mountPersistentDisk(32, "hold")
	filler := filepath.Join(folder, "filler")
	fill(t, filler)
	s.start()
	process := s.cmd.Process.Pid
	s.pushAndPull("a", "b")
	s.checkHoldFailing("it cannot be opened: the disk is full")
	s.publicKey()
	s.checkXRPC("GET", "com.atproto.sync.getRepo?did="+s.did, nil, http.StatusServiceUnavailable, "ServiceUnavailable")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "hold opened", 60*time.Second, func() bool {
		_, hold, _ := s.holdHealth()
		return hold == "ok"
	})
	s.waitDrained()
	s.checkTotals(t, map[string]int{"oss/app": 2}, 4, 2)
	if s.cmd.Process.Pid != process || s.dead() {
		t.Error("the process has changed")
	}
	if registry, _, _ := s.holdHealth(); registry != "ok" {
		t.Errorf("health: the registry is %s", registry)
	}
	s.stop()
}

// Counting pauses while less than the reserve is free, which health reports, and resumes
// with a smaller reserve.
func TestReserve(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: "count: {head_window: 1s}"})
	_, port, _ := strings.Cut(s.host, ":")
	s.edit(`hold: {hostname: "localhost:`+port+`", reserve: 1MiB}`, "journal: {wait: 9s}")
	s.mountPersistentDisk(48)
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	if status, err := s.get("oss/app", "v1"); status != http.StatusOK {
		t.Errorf("pull: %d %v", status, err)
	}
	status, reasons := s.diskHealth()
	if status != "degraded" || reasons != "less than 1GiB of disk space is free (option reserve): counting and publishing are paused" {
		t.Errorf("health: %s, %q", status, reasons)
	}
	res, body, err := s.do("GET", "/tidings/api/v1/repositories/oss/app", "", nil)
	if err != nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("counts: %v %s %v", res, body, err)
	}
	s.stop()
	s.edit("journal: {wait: 9s}", "reserve: 4MiB")
	s.start()
	s.waitDrained()
	if status, reasons := s.diskHealth(); status != "ok" {
		t.Errorf("health with a smaller reserve: %s, %q", status, reasons)
	}
	if n := s.counts("oss/app"); n.Pushes != 1 || n.Pulls != 1 {
		t.Errorf("counted %+v, want a push and a pull", n)
	}
	s.stop()
}

// The registry is killed, and started with about as little free space as opening the
// data folder needs. It serves pulls, and when there is free space it accepts pushes
// without a restart.
func TestStartOnAlmostFullDisk(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	folder := s.mountPersistentDisk(64)
	filler := filepath.Join(folder, "filler")
	s.start()
	s.push(t, "oss/app", "base", newImage(2))
	s.waitDrained()
	pushes, refused, layers := 1, 0, 2
	for _, kib := range []int64{700, 2100, 2400, 3200} {
		m := newImage(1)
		if err := s.upload("oss/app", m); err != nil {
			t.Fatal(err)
		}
		s.kill()
		fill(t, filler)
		info, err := os.Stat(filler)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filler, info.Size()-kib<<10); err != nil {
			t.Fatal(err)
		}
		s.start()
		process := s.cmd.Process.Pid
		if status, err := s.get("oss/app", "base"); status != http.StatusOK {
			t.Errorf("%d KiB: pull: %d %v", kib, status, err)
		}
		tag := fmt.Sprint("v", kib)
		for range 30 {
			if status, _ := s.put("oss/app", tag, m); status != http.StatusCreated {
				refused++
				break
			}
			pushes++
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("%d KiB: push accepted\n%s", kib, s.log), 60*time.Second, func() bool {
			status, _ := s.put("oss/app", tag, m)
			if status != http.StatusCreated {
				refused++
			}
			return status == http.StatusCreated
		})
		pushes, layers = pushes+1, layers+1
		s.waitDrained()
		if status, reasons := s.diskHealth(); status != "ok" {
			t.Errorf("%d KiB: health with free space: %s %q\n%s", kib, status, reasons, s.log)
		}
		if s.cmd.Process.Pid != process || s.dead() {
			t.Fatalf("%d KiB: the process has changed", kib)
		}
	}
	within(t, "pushes", int64(pushes), s.counts("oss/app").Pushes, int64(pushes+refused))
	s.checkUnique(t, layerCollection, layers, func(r record) string { return fmt.Sprint(r.Value) })
	s.verifyRepo()
	s.stop()
}
