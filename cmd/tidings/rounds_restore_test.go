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

	"github.com/tidings-dev/tidings/notifier/counter/redistest"
)

// data is where a part of the data folder is; empty: all of it.
func (s *server) data(part string) string { return filepath.Join(s.dir, "tidings", part) }

// copyTo copies a file or folder, which must not be there, with all that a backup
// keeps of it.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// A restore sets a part of the data folder of a stopped registry back.
type restore struct {
	name    string
	back    func(t *testing.T, s *server, backup string)
	command bool // the operator has to run `tidings reconcile`
	forgets bool // what was counted since the copy is lost
	journal bool // what was only in the journal is lost
	nothing bool // all that was counted is lost
}

// replace puts the copy of a part in the place of it.
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
	// As a disk that is rolled back: no file tells that it was.
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

// restoreWarnings are what the log has to say after a restore.
var restoreWarnings = []string{
	"was copied or restored since the last start", "the journal has another id", "the ledger is rebuilt", "the journal is older than the state",
	"takes a new id", "events are no longer in the journal, a reader jumps them",
}

// A part of the data folder is set back to an older copy, after more was pushed,
// moved, deleted and pulled. In the end the account has what storage has, and
// pushing all of it again makes no record and no post twice. With Redis, what it
// had when the copy was put back is counted, too.
func TestRestoreRounds(t *testing.T) {
	t.Parallel()
	cases := restores
	if raceDetector { // they differ in what is on disk, not in what runs at once
		cases = restores[rand.IntN(len(restores)):][:1]
	}
	seed := roundsSeed(t)
	for i, c := range cases {
		for n := range min(rounds(t, 1), 4) {
			t.Run(fmt.Sprint(c.name, n), func(t *testing.T) {
				t.Parallel()
				var h *history
				if (uint64(i+n)+seed)%2 == 0 {
					h = newHistory(t, newServer(t, settings{}))
				} else {
					h = newRedisHistory(t, redistest.Start(t))
				}
				killed := (uint64(i+n/2)+h.seed)%2 == 0
				h.expected = append(h.expected, restoreWarnings...)
				backup := filepath.Join(h.dir, "backup")
				h.live(1, killed)
				copyTo(t, h.data(""), backup)
				before := h.numbersNow()
				h.live(2, killed)
				c.back(t, h.server, backup)
				if c.command {
					out, err := h.command("reconcile", h.config).CombinedOutput()
					if err == nil || !strings.Contains(string(out), "repairs them") {
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
					if killed { // while it rebuilds and compares
						h.diesEarly(rand.N(500 * time.Millisecond))
					}
				}
				h.same(t)
				h.live(3, killed)
				h.same(t)
			})
		}
	}
}

// live starts, makes some requests and ends.
func (h *history) live(round uint64, killed bool) {
	h.t.Helper()
	h.start()
	stop := make(chan struct{})
	until := h.steps.Load() + 70
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
		h.dies()
		return
	}
	h.drained()
	h.stop()
	h.ended()
}

// numbersNow is what was answered so far, by repository.
func (h *history) numbersNow() map[string][2]int64 {
	n := map[string][2]int64{}
	for name, told := range h.repos {
		n[name] = [2]int64{told.got, told.put}
	}
	return n
}

// forget takes out what was answered since, but for what Redis has.
func (h *history) forget(before map[string][2]int64) {
	sums := map[string][2]int64{}
	if h.redis != nil {
		sums = h.inRedis()
	}
	for name, told := range h.repos {
		told.got = max(before[name][0], min(told.got, sums[name][0]))
		told.put = max(before[name][1], min(told.put, sums[name][1]))
	}
}

// same checks that the account has what storage has, now and after everything was
// pushed again.
func (h *history) same(t *testing.T) {
	t.Helper()
	h.settle(t)
	h.agree(t)
	h.start()
	h.counted(t)
	f := h.look(t)
	h.recorded(t, f)
	again := 0
	for _, name := range slices.Sorted(maps.Keys(f.tags)) {
		for tag, d := range f.tags[name] {
			if d == "" {
				continue // its manifest was deleted by a request that was interrupted
			}
			again++
			if !h.push(name, tag, h.images[d]) {
				t.Errorf("%s:%s can't be pushed again", name, tag)
			}
		}
	}
	h.drained()
	f = h.look(t)
	records := h.recorded(t, f)
	for image, n := range f.posts {
		if n > 1 || !public(image) {
			t.Errorf("%s has %d posts", image, n)
		}
	}
	h.verified()
	h.drained()
	h.stop()
	h.ended()
	h.agree(t)
	t.Logf("%d operations; %d images, %d records, %d posts; %d tags pushed again", h.steps.Load(), len(h.order), records, len(f.posts), again)
	for _, p := range h.problems {
		t.Error(p)
	}
	h.problems = nil
}

// clone copies a stopped registry with its storage, for another port. Its
// configuration is changed by edit.
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

// A copy of the folder runs beside the original: without an account of its own it
// counts and publishes nothing, and with the same account each of the two has in
// its repository what its own storage has. What one does is not in the other's.
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
			s.drained()
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
			s.drained()
			other.drained()
			if got, want := s.numbers("oss/app"), (repositoryAnswer{"oss/app", 0, 2}); got != want {
				t.Errorf("the original counts %+v, want %+v", got, want)
			}
			if got, want := other.numbers("oss/app"), (repositoryAnswer{"oss/app", 3, 2}); got != want {
				t.Errorf("the copy counts %+v, want %+v", got, want)
			}
			s.exactly(t, map[string]int{"oss/app": 2}, 3, 2)
			if account {
				other.exactly(t, map[string]int{"oss/app": 2}, 3, 2)
			}
			for _, each := range []*server{s, other} {
				each.stop()
				if each == s || account {
					each.agree(t)
				}
			}
		})
	}
}

// A copy that is given another hostname does not start with the account that it
// came with, and says how it gets one of its own: that has what storage has.
func TestCloneAnotherHostname(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	m := newImage(3)
	s.start()
	s.push(t, "oss/app", "v1", m)
	s.drained()
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
	other.drained()
	other.until(t, "it has the records of its storage", func() bool { return len(other.records(t, other.did, layerCollection)) == 3 })
	other.push(t, "oss/app", "v1", m)
	other.drained()
	other.exactly(t, map[string]int{"oss/app": 2}, 3, 0)
	other.stop()
	other.agree(t)
}

func (s *server) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came true that %s\n%s", what, s.log)
		}
	}
}
