package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mountOwnDisk moves the data folder to a file system that failDisk can make fail. It
// is mounted as long as the process runs.
func (s *server) mountOwnDisk() {
	s.t.Helper()
	image, folder := filepath.Join(s.dir, "disk.img"), filepath.Join(s.dir, "tidings")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-d", folder, image).CombinedOutput(); err != nil {
		s.t.Skipf("needs mkfs.ext4 (e2fsprogs): %v %s", err, out)
	}
	mount := fmt.Sprintf("mount -o loop,errors=remount-ro %s %s", image, folder)
	if out, err := exec.Command("unshare", "-m", "sh", "-c", mount).CombinedOutput(); err != nil {
		s.t.Skipf("needs root and a loop device: %v %s", err, out)
	}
	s.wrap = []string{"unshare", "-m", "sh", "-c", mount + ` && exec "$@"`, "sh"}
}

// failDisk triggers a file system error, after which the kernel makes the disk
// read-only, also for open files.
func (s *server) failDisk() {
	s.t.Helper()
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		device, at, _ := strings.Cut(line, " ")
		if strings.HasPrefix(at, filepath.Join(s.dir, "tidings")+" ") {
			write(s.t, "/sys/fs/ext4/"+filepath.Base(device)+"/trigger_fs_error", "test")
			return
		}
	}
	s.t.Fatalf("the data folder is not mounted:\n%s", mounts)
}

// The disk becomes read-only while the server runs. Writes are refused with the reason,
// durable records are read and pulls served. After a restart on a repaired disk all
// acknowledged writes exist.
func TestDiskBecomesReadOnly(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.allowLogin()
	password := s.newPassword()
	s.mountOwnDisk()
	s.start()
	session := s.loginWith(password)
	s.push(t, "oss/app", "before", newImage(2))
	s.waitDrained()
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("before"), http.StatusOK, "", session...)
	later := newImage(1)
	if err := s.upload("oss/app", later); err != nil {
		t.Fatal(err)
	}

	s.failDisk()
	// The outcome of the first failed write is unknown; later writes are refused.
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("during"), http.StatusInternalServerError, "UnknownOutcome", session...)
	for range 3 {
		s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("later"), http.StatusServiceUnavailable, "ServiceUnavailable", session...)
	}
	if res, body, err := s.do("POST", "/xrpc/com.atproto.repo.uploadBlob", "image/png", []byte("picture"), session...); err != nil || res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "can't write to its disk") {
		t.Errorf("uploadBlob: %v %v %s", res, err, body)
	}
	for range 3 {
		if status, err := s.put("oss/app", "during", later); status != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "UNAVAILABLE") {
			t.Errorf("push: %d %v", status, err)
		}
		if status, err := s.get("oss/app", "before"); status != http.StatusOK {
			t.Errorf("pull: %d %v", status, err)
		}
	}
	s.checkXRPC("GET", noteRecord+s.did+"&rkey=before", nil, http.StatusOK, "")
	s.checkXRPC("GET", noteRecord+s.did+"&rkey=during", nil, http.StatusBadRequest, "RecordNotFound")
	s.verifyRepo()
	s.checkHoldFailing("stopped writing")
	s.waitForLog("read-only file system")
	s.waitForLog("restart when the disk works again")

	if err := s.terminate(); err == nil {
		t.Error("the server exited without an error")
	}
	if out, err := exec.Command("e2fsck", "-p", "-f", filepath.Join(s.dir, "disk.img")).CombinedOutput(); err != nil && err.(*exec.ExitError).ExitCode() > 1 {
		t.Fatalf("e2fsck: %v %s", err, out)
	}
	s.start()
	s.push(t, "oss/app", "after", later)
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("after"), http.StatusOK, "", session...)
	s.waitDrained()
	s.checkTotals(t, map[string]int{"oss/app": 2}, 3, 2)
	s.verifyRepo()
	s.stop()
	s.verifyOffline()
}
