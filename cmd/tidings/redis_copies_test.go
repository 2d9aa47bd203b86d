package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counter/redistest"
)

// sums waits until the registries show these pulls, and none says that it is
// degraded.
func sums(t *testing.T, after string, want int64, all ...*server) {
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

// setBack puts a copy of the data folder in its place, as a backup program does
// that writes into the folder: the lock file stays.
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

// TestRedisFolderSetBack: no pull is missing in the sum when a registry goes on
// from an older copy of its folder, nor when its state alone is older.
func TestRedisFolderSetBack(t *testing.T) {
	t.Parallel()
	for _, stateAlone := range []bool{false, true} {
		t.Run(map[bool]string{false: "the whole folder", true: "the state alone"}[stateAlone], func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			s := newServer(t, settings{options: fmt.Sprintf("redis: {addrs: [%q]}", redis.Addr)})
			s.start()
			s.push(t, "oss/app", "v1", newImage(1))
			pulls := s.pull(60)
			sums(t, "the first pulls", pulls, s)
			s.kill()
			backup := filepath.Join(s.dir, "backup")
			if err := os.CopyFS(backup, os.DirFS(filepath.Join(s.dir, "tidings"))); err != nil {
				t.Fatal(err)
			}
			s.start()
			pulls += s.pull(45)
			sums(t, "more", pulls, s)
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
			sums(t, "the folder was set back", pulls, s)
			s.kill()
			s.start()
			pulls += s.pull(5)
			sums(t, "a kill", pulls, s)
			s.stop()
		})
	}
}

// TestRedisClone: a copy of a running registry's counters in another registry.
// Neither loses a pull, and `redis forget` ends one of the two.
func TestRedisClone(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := settings{options: fmt.Sprintf("redis: {addrs: [%q]}", redis.Addr)}
	s, clone := newServer(t, options), newServer(t, options)
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	pulls := s.pull(50)
	sums(t, "the first pulls", pulls, s)
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
	sums(t, "both", pulls, s, clone)
	list := expect(t, s.dir, 0, []string{"redis", "list", s.config}, "ID", "HOST", "SEEN")
	lines := strings.Split(strings.TrimSpace(list), "\n")
	if len(lines) != 3 {
		t.Fatalf("two registries are listed as\n%s", list)
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
	sums(t, "one is forgotten, and kept", pulls, s)
	expect(t, s.dir, 0, []string{"redis", "forget", s.config, id}, "are removed from the sums")
	sums(t, "one is forgotten", pulls-30, s)
	expect(t, s.dir, 0, []string{"redis", "list", s.config}, "forgotten")
	s.stop()
}
