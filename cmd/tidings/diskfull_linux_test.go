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

func needNamespaces(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("needs user namespaces (sysctl kernel.unprivileged_userns_clone=1, or root): %v %s", err, out)
	}
}

// mountSmallJournal mounts a file system of the given size on the journal's folder, in
// the mount namespace of the process.
func (s *server) mountSmallJournal(megabytes int) {
	s.t.Helper()
	needNamespaces(s.t)
	journal := filepath.Join(s.dir, "tidings", "journal")
	if err := os.MkdirAll(journal, 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.wrap = []string{"unshare", "-rm", "sh", "-c",
		fmt.Sprintf(`mount -t tmpfs -o size=%dm tmpfs %s && exec "$@"`, megabytes, journal), "sh"}
}

// While the journal's disk is full, pushes are answered 503 with the reason and leave no
// partial entries, and pulls are served. Operation resumes when there is free space.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: "announce: {tags: [\"*\"], collect: 0s, cooldown: 0s, daily_limit: 0}\njournal: {segment: 4MiB}"})
	s.mountSmallJournal(12)
	s.start()
	before, after := newImage(1), newImage(1)
	s.push(t, "oss/app", "before", before)
	if err := s.upload("oss/app", after); err != nil {
		t.Fatal(err)
	}

	filler := filepath.Join("/proc", fmt.Sprint(s.cmd.Process.Pid), "root", s.dir, "tidings", "journal", "filler")
	fill(t, filler)
	stored, refused := 0, 0
	for refused < 5 && stored < 2000 { // the journal has preallocated space for some
		status, err := s.put("oss/app", "during", after)
		switch {
		case status == http.StatusCreated && refused == 0:
			stored++
		case status == http.StatusServiceUnavailable && strings.Contains(err.Error(), "UNAVAILABLE"):
			refused++
		default:
			t.Fatalf("push %d on a full disk, %d refused before: %d %v", stored, refused, status, err)
		}
	}
	if refused == 0 {
		t.Error("no push was refused")
	}
	for range 20 {
		if status, err := s.get("oss/app", "before"); status != http.StatusOK {
			t.Errorf("pull on a full disk: %d %v", status, err)
		}
	}
	if status, reasons := s.diskHealth(); status != "degraded" || !strings.Contains(reasons, "the disk of the journal is full") {
		t.Errorf("health on a full disk: %s, %q", status, reasons)
	}
	if !strings.Contains(s.log.String(), "no space left on device") {
		t.Errorf("the log lacks the reason:\n%s", s.log)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if status, err := s.put("oss/app", "after", after); status != http.StatusCreated {
		t.Fatalf("push with free space again: %d %v\n%s", status, err, s.log)
	}
	s.waitDrained()
	if status, reasons := s.diskHealth(); status != "ok" {
		t.Errorf("health with free space again: %s, %q", status, reasons)
	}
	pushes := s.counts("oss/app").Pushes
	// A push that was refused after it was stored is found in storage and counted.
	if least, most := int64(2+stored), int64(2+stored+refused); pushes < least || pushes > most {
		t.Errorf("%d pushes counted, want %d to %d", pushes, least, most)
	}
	s.verifyRepo()
	s.checkUnique(t, layerCollection, 2, func(r record) string { return fmt.Sprint(r.Value) })
	s.stop()
}

func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 4096)
	for range 1 << 20 {
		if _, err := f.Write(chunk); err != nil {
			break
		}
	}
	for { // the last few bytes
		if _, err := f.Write(chunk[:1]); err != nil {
			return
		}
	}
}
