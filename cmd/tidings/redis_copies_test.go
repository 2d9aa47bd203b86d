package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// waitSums waits until all registries show the pulls and none is degraded.
func waitSums(t *testing.T, after string, want int64, all ...*server) {
	t.Helper()
	for _, s := range all {
		var got summed
		for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if got = s.summed("oss/app"); got.Pulls == want && !got.Degraded {
				break
			}
		}
		if got.Pulls != want || got.Degraded {
			t.Errorf("after %s: %d pulls, degraded %v; want %d", after, got.Pulls, got.Degraded, want)
		}
	}
}

func (s *server) pull(n int) (pulled int64) {
	s.t.Helper()
	for range n {
		if status, err := s.get("oss/app", "v1"); status != 200 {
			s.t.Errorf("%d %v", status, err)
		}
	}
	return int64(n)
}

// restoreData restores a copy of the data folder, except for the lock file, as a backup
// program does that writes into the folder.
func (s *server) restoreData(backup string) {
	s.t.Helper()
	data := filepath.Join(s.dir, "tidings")
	for _, name := range []string{"state", "journal", "hold"} {
		if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
			s.t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(data, name), os.DirFS(filepath.Join(backup, name))); err != nil {
			s.t.Fatal(err)
		}
	}
}

// No pull is missing from the sum, and none is in it twice, after a backup of the running
// registry is restored.
func TestRedisBackup(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	s := newServer(t, settings{options: fmt.Sprintf("redis: {addrs: [%q]}", redis.Addr)})
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	pulls := s.pull(60)
	waitSums(t, "the first pulls", pulls, s)
	dir := filepath.Join(s.dir, "backup")
	s.backupJSON(t, dir)
	pulls += s.pull(45)
	waitSums(t, "more", pulls, s)
	s.kill()
	s.restoreBackup(t, dir)
	s.start()
	pulls += s.pull(30)
	waitSums(t, "the restore", pulls, s)
	s.stop()
}

// No pull is missing from the sum after the data folder, or only the state, is restored
// from an older copy.
func TestRedisRestoredFolder(t *testing.T) {
	t.Parallel()
	for _, stateAlone := range []bool{false, true} {
		t.Run(map[bool]string{false: "the whole folder", true: "the state alone"}[stateAlone], func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			s := newServer(t, settings{options: fmt.Sprintf("redis: {addrs: [%q]}", redis.Addr)})
			s.start()
			s.push(t, "oss/app", "v1", newImage(1))
			pulls := s.pull(60)
			waitSums(t, "the first pulls", pulls, s)
			s.kill()
			backup := filepath.Join(s.dir, "backup")
			for _, name := range []string{"state", "journal", "hold"} {
				if err := os.CopyFS(filepath.Join(backup, name), os.DirFS(s.data(name))); err != nil {
					t.Fatal(err)
				}
			}
			s.start()
			pulls += s.pull(45)
			waitSums(t, "more", pulls, s)
			s.kill()
			if stateAlone {
				for _, name := range []string{"journal", "hold"} {
					if err := os.RemoveAll(filepath.Join(backup, name)); err != nil {
						t.Fatal(err)
					}
					if err := os.CopyFS(filepath.Join(backup, name), os.DirFS(filepath.Join(s.dir, "tidings", name))); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.restoreData(backup)
			s.start()
			pulls += s.pull(30)
			waitSums(t, "the restore", pulls, s)
			s.kill()
			s.start()
			pulls += s.pull(5)
			waitSums(t, "a kill", pulls, s)
			s.stop()
		})
	}
}

// A copy of a registry's counters runs as another registry. Neither loses a pull, and
// `redis forget` removes one of them.
func TestRedisClone(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := settings{options: fmt.Sprintf("redis: {addrs: [%q]}", redis.Addr)}
	s, clone := newServer(t, options), newServer(t, options)
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	pulls := s.pull(50)
	waitSums(t, "the first pulls", pulls, s)
	s.kill()
	for _, name := range []string{"state", "journal"} {
		if err := os.CopyFS(filepath.Join(clone.dir, "tidings", name), os.DirFS(filepath.Join(s.dir, "tidings", name))); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	pulls += s.pull(10)
	clone.start()
	clone.push(t, "oss/app", "v1", newImage(1))
	for range 5 {
		pulls += s.pull(4) + clone.pull(6)
	}
	waitSums(t, "both", pulls, s, clone)
	list := expect(t, s.dir, 0, []string{"redis", "list", s.config}, "ID", "HOST", "SEEN")
	lines := strings.Split(strings.TrimSpace(list), "\n")
	if len(lines) != 3 {
		t.Fatalf("want two registries, got\n%s", list)
	}
	clone.stop()
	id := ""
	for _, line := range lines[1:] {
		if fields := strings.Fields(line); fields[4] == "30" {
			id = fields[0]
		}
	}
	expect(t, s.dir, 1, []string{"redis", "forget", s.config, "nobody"}, "unknown registry id: nobody", "tidings redis list")
	expect(t, s.dir, 0, []string{"redis", "forget", s.config, "--keep", id}, id+" of ", "30 pulls and 1 pushes in 1 repository are kept in the sums")
	waitSums(t, "one is forgotten, and kept", pulls, s)
	expect(t, s.dir, 0, []string{"redis", "forget", s.config, id}, "are removed from the sums")
	waitSums(t, "one is forgotten", pulls-30, s)
	expect(t, s.dir, 0, []string{"redis", "list", s.config}, "forgotten")
	s.stop()
}
