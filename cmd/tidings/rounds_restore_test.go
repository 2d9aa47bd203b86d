package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/race"
	testrounds "github.com/tidings-dev/tidings/internal/rounds"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// data returns the path of a part of the data folder; "" is the folder itself.
func (s *server) data(part string) string { return filepath.Join(s.dir, "tidings", part) }

// copyTo copies a file or folder with its attributes. The target must not exist.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// A restore restores a part of the data folder of a stopped registry from a backup.
type restore struct {
	name    string
	back    func(t *testing.T, s *server, backup string)
	command bool // requires `tidings reconcile`
	forgets bool // counts since the backup are lost
	journal bool // events that were only in the journal are lost
	nothing bool // all counts are lost
}

// replace replaces a part by the one in the backup.
func replace(part string) func(*testing.T, *server, string) {
	return func(t *testing.T, s *server, backup string) {
		if err := os.RemoveAll(s.data(part)); err != nil {
			t.Fatal(err)
		}
		copyTo(t, filepath.Join(backup, part), s.data(part))
	}
}

var restores = []restore{
	{name: "whole", back: replace(""), forgets: true},
	{name: "journal", journal: true, back: replace("journal")},
	{name: "state", back: replace("state")},
	{name: "hold", back: replace("hold")},
	{name: "state and hold", back: func(t *testing.T, s *server, backup string) {
		replace("state")(t, s, backup)
		replace("hold")(t, s, backup)
	}},
	{name: "journal and state", forgets: true, back: func(t *testing.T, s *server, backup string) {
		replace("journal")(t, s, backup)
		replace("state")(t, s, backup)
	}},
	{name: "journal and hold", journal: true, back: func(t *testing.T, s *server, backup string) {
		replace("journal")(t, s, backup)
		replace("hold")(t, s, backup)
	}},
	// Like a rolled-back disk: no file shows it.
	{name: "disk", command: true, forgets: true, back: func(t *testing.T, s *server, backup string) {
		for _, part := range []string{"journal", "state", "hold"} {
			replace(part)(t, s, backup)
		}
	}},
	{name: "hold lost", back: func(t *testing.T, s *server, _ string) {
		if err := os.RemoveAll(s.data("hold")); err != nil {
			t.Fatal(err)
		}
		if out, err := s.command("hold", "init", s.config).CombinedOutput(); err != nil {
			t.Fatalf("hold init: %v\n%s", err, out)
		}
	}},
	{name: "hold from an export", back: func(t *testing.T, s *server, backup string) {
		export := filepath.Join(s.dir, "export.car")
		copyTo(t, s.data("hold"), filepath.Join(s.dir, "newer"))
		replace("hold")(t, s, backup)
		if out, err := s.command("hold", "export", s.config, export).CombinedOutput(); err != nil {
			t.Fatalf("hold export: %v\n%s", err, out)
		}
		if err := errors.Join(os.RemoveAll(s.data("hold")), os.Rename(filepath.Join(s.dir, "newer"), s.data("hold"))); err != nil {
			t.Fatal(err)
		}
		if out, err := s.command("hold", "import", s.config, export).CombinedOutput(); err != nil {
			t.Fatalf("hold import: %v\n%s", err, out)
		}
	}},
	{name: "all but the key lost", command: true, forgets: true, nothing: true, back: func(t *testing.T, s *server, _ string) {
		for _, part := range []string{"journal", "state", "hold", "lock"} {
			if err := os.RemoveAll(s.data(part)); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := s.command("hold", "init", s.config).CombinedOutput(); err != nil {
			t.Fatalf("hold init: %v\n%s", err, out)
		}
	}},
	{name: "state lost", forgets: true, nothing: true, back: func(t *testing.T, s *server, _ string) {
		if err := os.RemoveAll(s.data("state")); err != nil {
			t.Fatal(err)
		}
	}},
}

// restoreWarnings may be logged after a restore.
var restoreWarnings = []string{
	"was copied or restored since the last start", "the journal has another id", "the ledger is rebuilt", "the journal is older than the state",
	"takes a new id", "events are no longer in the journal; a reader skips them",
}

// A part of the data folder is restored from a backup after more requests. In the end
// the account has the records of the images in storage, and pushing all images
// again duplicates no record and no post. With Redis, the counts that had been
// written there are kept. The seed draws two of the twelve cases, and with the race detector one;
// TIDINGS_KILL_ROUNDS=1 runs all.
func TestRestoreRounds(t *testing.T) {
	t.Parallel()
	seed, share := testrounds.Seed(t), uint64(len(restores)/2)
	switch {
	case testrounds.Configured():
		share = 1
	case race.Enabled:
		share = uint64(len(restores))
	}
	for i, c := range restores {
		if (uint64(i)+seed)%share != 0 {
			continue
		}
		for n := range min(rounds(t, 1), 4) {
			t.Run(fmt.Sprint(c.name, n), func(t *testing.T) {
				t.Parallel()
				var h *workload
				if (uint64(i+n)+seed/share)%2 == 0 {
					h = newWorkload(t, newServer(t, settings{}))
				} else {
					h = newRedisWorkload(t, redistest.Start(t))
				}
				killed := (uint64(i+n/2)+h.seed)%2 == 0
				h.expected = append(h.expected, restoreWarnings...)
				backup := filepath.Join(h.dir, "backup")
				h.runRound(1, killed)
				copyTo(t, h.data(""), backup)
				before := h.answeredCounts()
				h.runRound(2, killed)
				c.back(t, h.server, backup)
				if c.command {
					out, err := h.command("reconcile", "--fix", h.config).CombinedOutput()
					if err == nil || !strings.Contains(string(out), "runs at the next start") {
						t.Errorf("reconcile: %v\n%s", err, out)
					}
				}
				if c.nothing {
					before = map[string][2]int64{}
				}
				if c.forgets || c.journal && killed {
					h.forget(before)
				}
				for range 3 {
					if killed { // during rebuild and comparison
						h.startAndCrash(rand.N(500 * time.Millisecond))
					}
				}
				h.checkRestored(t)
				h.runRound(3, killed)
				h.checkRestored(t)
			})
		}
	}
}

// runRound starts the registry, sends some requests and stops or kills it.
func (h *workload) runRound(round uint64, killed bool) {
	h.t.Helper()
	h.start()
	stop := make(chan struct{})
	until := h.steps.Load() + 40
	process := h.cmd.Process
	go func() {
		for h.steps.Load() < until {
			pause()
		}
		if killed {
			process.Kill()
		}
		close(stop)
	}()
	h.work(round, stop)
	<-stop
	if killed {
		h.crash()
		return
	}
	h.waitDrained()
	h.stop()
	h.checkLog()
}

// answeredCounts returns the answered pulls and pushes by repository.
func (h *workload) answeredCounts() map[string][2]int64 {
	n := map[string][2]int64{}
	for name, repoLog := range h.repos {
		n[name] = [2]int64{repoLog.got, repoLog.put}
	}
	return n
}

// forget drops the requests answered since, except for those in the sums of Redis.
func (h *workload) forget(before map[string][2]int64) {
	sums := map[string][2]int64{}
	if h.redis != nil {
		sums = h.inRedis()
	}
	for name, repoLog := range h.repos {
		repoLog.got = max(before[name][0], min(repoLog.got, sums[name][0]))
		repoLog.put = max(before[name][1], min(repoLog.put, sums[name][1]))
	}
}

// checkRestored checks the registry, and again after all its images are pushed again.
func (h *workload) checkRestored(t *testing.T) {
	t.Helper()
	h.check(t, func(f snapshot) {
		for _, name := range slices.Sorted(maps.Keys(f.tags)) {
			for tag, d := range f.tags[name] {
				if d == "" {
					continue // an interrupted request deleted its manifest
				}
				if !h.push(name, tag, h.images[d]) {
					t.Errorf("%s:%s cannot be pushed again", name, tag)
				}
			}
		}
		h.waitDrained()
		f = h.snapshot(t)
		h.checkRecords(t, f)
		h.checkUniquePosts(t, f)
	})
}

// clone copies a stopped registry with its storage, for another port. Edit changes
// its configuration.
func (s *server) clone(t *testing.T, edit func(config, port string) string) *server {
	t.Helper()
	dir, addr := filepath.Join(t.TempDir(), "clone"), freeAddr(t)
	copyTo(t, s.dir, dir)
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(config), s.dir, dir)
	_, port, _ := strings.Cut(addr, ":")
	text = edit(strings.Replace(text, fmt.Sprintf("addr: %q", s.host), fmt.Sprintf("addr: %q", addr), 1), port)
	c := &server{t: t, client: newClient(addr), dir: dir, config: filepath.Join(dir, "config.yml"), did: s.did}
	write(t, c.config, text)
	return c
}

// A copy of the data folder runs next to the original. Without an account it only
// counts; with the same account each of them has the records of its own storage,
// and none of the other's.
func TestClone(t *testing.T) {
	t.Parallel()
	withoutHold := regexp.MustCompile(`(?m)^ *(hold|announce): .*\n`)
	for _, account := range []bool{true, false} {
		t.Run(fmt.Sprint("account ", account), func(t *testing.T) {
			t.Parallel()
			s := newServer(t, settings{})
			shared, own, its := newImage(1), newImage(2), newImage(3)
			s.start()
			s.push(t, "oss/app", "shared", shared)
			s.waitDrained()
			s.stop()
			other := s.clone(t, func(config, _ string) string {
				if account {
					return config
				}
				return withoutHold.ReplaceAllString(config, "")
			})
			s.start()
			other.start()
			s.push(t, "oss/app", "own", own)
			other.push(t, "oss/app", "its", its)
			if res, _, err := other.do("DELETE", "/v2/oss/app/manifests/"+shared.digest, "", nil); err != nil || res.StatusCode != 202 {
				t.Errorf("delete: %v %v", res, err)
			}
			for range 3 {
				if status, err := other.get("oss/app", "its"); status != 200 {
					t.Errorf("pull: %d %v", status, err)
				}
			}
			s.waitDrained()
			other.waitDrained()
			if got, want := s.counts("oss/app"), (repositoryAnswer{"oss/app", 0, 2}); got != want {
				t.Errorf("counts of the original: %+v, want %+v", got, want)
			}
			if got, want := other.counts("oss/app"), (repositoryAnswer{"oss/app", 3, 2}); got != want {
				t.Errorf("counts of the copy: %+v, want %+v", got, want)
			}
			s.checkTotals(t, map[string]int{"oss/app": 2}, 3, 2)
			if account {
				other.checkTotals(t, map[string]int{"oss/app": 2}, 3, 2)
			}
			for _, each := range []*server{s, other} {
				each.stop()
				if each == s || account {
					each.checkConsistent(t)
				}
			}
		})
	}
}

// A copy with another hostname refuses to start with the copied account. After `hold
// init --new` its own account has the records of the images in storage.
func TestCloneAnotherHostname(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	m := newImage(3)
	s.start()
	s.push(t, "oss/app", "v1", m)
	s.waitDrained()
	s.stop()
	other := s.clone(t, func(config, port string) string {
		return regexp.MustCompile(`localhost:\d+`).ReplaceAllString(config, "localhost:"+port)
	})
	if out, err := other.command("serve", other.config).CombinedOutput(); err == nil || !strings.Contains(string(out), "tidings hold init --new") {
		t.Errorf("serve: %v\n%s", err, out)
	}
	if out, err := other.command("hold", "init", "--new", other.config).CombinedOutput(); err != nil {
		t.Errorf("hold init --new: %v\n%s", err, out)
	}
	_, port, _ := strings.Cut(other.host, ":")
	other.did = "did:web:localhost%253A" + port
	other.start()
	other.waitDrained()
	other.until(t, "records of the images in storage", func() bool { return len(other.records(t, other.did, layerCollection)) == 3 })
	other.push(t, "oss/app", "v1", m)
	other.waitDrained()
	other.checkTotals(t, map[string]int{"oss/app": 2}, 3, 0)
	other.stop()
	other.checkConsistent(t)
}

func (s *server) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s\n%s", what, s.log)
		}
	}
}
