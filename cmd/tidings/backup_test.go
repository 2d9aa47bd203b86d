package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/backup"
)

// backupJSON runs `backup` and returns what it did.
func (s *server) backupJSON(t *testing.T, dir string, args ...string) (r backup.Result) {
	t.Helper()
	out, err := s.command(append([]string{"backup", s.config, dir, "--json"}, args...)...).Output()
	if err != nil {
		t.Fatalf("backup: %v\n%s\n%s", err, out, s.log)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// restoreBackup replaces the data folder by a backup.
func (s *server) restoreBackup(t *testing.T, dir string, texts ...string) {
	t.Helper()
	if err := os.Rename(s.data(""), filepath.Join(s.dir, "lost")); err != nil {
		t.Fatal(err)
	}
	expect(t, s.dir, 0, []string{"restore", dir, s.config}, append(texts, "`tidings serve")...)
}

// A registry with pushes, pulls, deletes and readers of the firehose is backed up, killed,
// and restored. Nothing that was answered before the backup is lost, nothing is there
// twice, and the readers go on.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	h := newWorkload(t, newServer(t, settings{}))
	h.expected = append(h.expected, restoreWarnings...)
	h.start()
	reader, fickle := newReader(h.server, nil, false), newReader(h.server, nil, true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go reader.run(ctx)
	go fickle.run(ctx)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); h.work(1, stop) }()
	steps := func(n int64) {
		for until := h.steps.Load() + n; h.steps.Load() < until; {
			pause()
		}
	}
	dir := filepath.Join(h.dir, "backup")
	steps(60)
	first := h.backupJSON(t, dir)
	if first.Files == 0 || first.Kept > 0 || first.Linked != first.Files {
		t.Errorf("first backup: %+v", first)
	}
	steps(60)
	h.mu.Lock()
	before := h.answeredCounts()
	h.mu.Unlock()
	if second := h.backupJSON(t, dir); second.Kept == 0 {
		t.Errorf("second backup: %+v", second)
	}
	steps(40)
	close(stop)
	<-ended
	h.kill()
	h.restoreBackup(t, dir, "The account is valid")
	h.verifyOffline()
	h.forget(before)
	h.checkRestored(t)
	h.start()
	h.server.push(t, "oss/a", "afterwards", newImage(2))
	h.waitDrained()
	var latest struct{ Rev string }
	h.json(t, "/xrpc/com.atproto.sync.getLatestCommit?did="+h.did, &latest)
	reader.waitForRev(t, latest.Rev)
	fickle.waitForRev(t, latest.Rev)
	h.stop()
}

// A stopped registry is backed up with and without its key, and restored to another folder,
// but not over anything else.
func TestBackupStopped(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	s.waitDrained()
	dir := filepath.Join(s.dir, "backup")
	running := s.backupJSON(t, dir)
	s.stop()
	wrong := filepath.Join(s.dir, "wrong")
	if err := os.Mkdir(wrong, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(wrong, "hold.key"), "of another account")
	expect(t, s.dir, 1, []string{"restore", dir, s.config, "--to", wrong}, "another key than that of the backup")
	expect(t, s.dir, 0, []string{"backup", s.config, "backup", "--no-key"}, "unchanged", "It has no keys")
	if left, _ := filepath.Glob(s.data("*.tmp")); len(left) > 0 || running.Files == 0 {
		t.Errorf("left over: %v; %+v", left, running)
	}
	if _, err := os.Stat(filepath.Join(dir, "hold.key")); !os.IsNotExist(err) {
		t.Errorf("the key is in the backup: %v", err)
	}
	expect(t, s.dir, 1, []string{"restore", dir, s.config}, "not empty")
	other := filepath.Join(s.dir, "other")
	expect(t, s.dir, 1, []string{"restore", dir, s.config, "--to", other}, "the backup has no key", "put the account's key there")
	copyTo(t, s.data("hold.key"), filepath.Join(other, "hold.key"))
	expect(t, s.dir, 0, []string{"restore", dir, s.config, "--to", other}, "has the backup of", "The account is valid")
	// An interrupted restore is not used, and can be repeated.
	if err := os.Mkdir(filepath.Join(other, "restore.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(s.dir, "other.yml")
	write(t, moved, strings.Replace(string(config), fmt.Sprintf("data: %s/tidings", s.dir), "data: "+other, 1))
	expect(t, s.dir, 1, []string{"hold", "verify", moved}, "a restore into "+other+" was interrupted")
	expect(t, s.dir, 0, []string{"restore", dir, moved}, "The account is valid")
	expect(t, s.dir, 0, []string{"hold", "verify", moved}, "is valid")
	// A backup that was damaged is not restored.
	tables, err := filepath.Glob(filepath.Join(dir, "hold", "*.sst"))
	logs, _ := filepath.Glob(filepath.Join(dir, "hold", "*.log"))
	if err != nil || len(tables)+len(logs) == 0 {
		t.Fatal("no tables", err)
	}
	file := append(logs, tables...)[0]
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	write(t, file, string(content))
	expect(t, s.dir, 1, []string{"restore", dir, s.config, "--to", filepath.Join(s.dir, "third")}, "damaged", filepath.Base(file))
}

// `hold serve` of an account that nobody notifies is backed up while it runs.
func TestBackupHoldServe(t *testing.T) {
	t.Parallel()
	dir := newHold(t, "hold: {hostname: \"localhost:5000\", reserve: 1MiB}")
	_, stop := startHoldServe(t, dir)
	expect(t, dir, 0, []string{"status", "c.yml"}, "status", "ok")
	expect(t, dir, 0, []string{"backup", "c.yml", "backup"}, "linked", "copied")
	expect(t, dir, 1, []string{"backup", "c.yml", "data/backup"}, "must not contain each other")
	stop()
	expect(t, dir, 0, []string{"restore", "backup", "c.yml", "--to", "restored"}, "The account is valid")
}

// A registry that publishes to an account on a PDS is backed up while an event is pending
// there, goes on, and is restored. What was published since the backup is not published
// again, and the restored registry goes on.
func TestBackupAccount(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.start()
	s.push(t, "oss/app", "v1", newImage(2))
	s.waitPublished(1)
	s.pds.set(badServices["nothing there"].change)
	s.pushWhileBroken(badServices["nothing there"].says)
	dir := filepath.Join(s.dir, "backup")
	s.backupJSON(t, dir)
	s.pds.set(func(p *fakePDS) { p.fault = nil })
	s.waitPublished(2)
	s.push(t, "oss/app", "v3", newImage(2))
	s.waitPublished(3)
	s.kill()
	s.restoreBackup(t, dir)
	s.start()
	s.push(t, "oss/app", "v4", newImage(2))
	s.waitPublished(4)
}

// The files that root restores belong to the owner of the data folder or, if there is none,
// of the folder that it is in.
func TestRestoreOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can change the owner of a file")
	}
	dir := newHold(t, "hold: {hostname: \"localhost:5000\", reserve: 1MiB}")
	expect(t, dir, 0, []string{"backup", "c.yml", "backup"}, "linked")
	expect(t, dir, 0, []string{"restore", "backup", "c.yml", "--to", "mine"}, "The files belong to root")
	for _, folder := range []string{"existing", "parent"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, folder), 0o700), os.Chown(filepath.Join(dir, folder), 1234, 5678)); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"existing", "parent/a/b"} {
		out := expect(t, dir, 0, []string{"restore", "backup", "c.yml", "--to", to}, "The account is valid")
		if strings.Contains(out, "belong to root") {
			t.Errorf("%s: %s", to, out)
		}
		top, _, _ := strings.Cut(to, "/")
		files := 0
		err := filepath.WalkDir(filepath.Join(dir, top), func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 1234 || stat.Gid != 5678 {
				t.Errorf("%s belongs to %d:%d", path, stat.Uid, stat.Gid)
			}
			files++
			return nil
		})
		if err != nil || files < 6 {
			t.Errorf("%s: %d files, %v", to, files, err)
		}
	}
}
