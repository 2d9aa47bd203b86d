package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	testrounds "github.com/tidings-dev/tidings/internal/rounds"
)

// rounds returns the number of rounds of a test.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	return testrounds.Number(t, usual)
}

// someCases draws a third of the cases, and with the race detector one. It is for cases that
// run the same code with other data. TIDINGS_KILL_ROUNDS=1 runs all.
func someCases[T any](t *testing.T, cases []T) []T {
	t.Helper()
	n := (len(cases) + 2) / 3
	switch {
	case testrounds.Configured():
		return cases
	case race.Enabled:
		n = 1
	}
	random := rand.New(rand.NewPCG(testrounds.Seed(t), 0))
	var drawn []T
	for _, i := range random.Perm(len(cases))[:n] {
		drawn = append(drawn, cases[i])
	}
	return drawn
}

// After a kill that immediately follows a 201, the next start writes the records and
// the post of the push once.
func TestKillAfterAnswer(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	n := rounds(t, 3)
	for i := range n {
		s.start()
		s.push(t, "oss/app", fmt.Sprint("v", i), newImage(2))
		s.kill()
	}
	s.start()
	s.waitDrained()
	s.checkTotals(t, map[string]int{"oss/app": n}, 2*n, n)
}

// After a kill between the write of the tag and the 201, the next start finds the
// push in storage and records it: a client may see the tag and not push again.
func TestKillBeforeAnswer(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{host: "  storage:\n    - name: dieattag\n      options: {tag: deadly}\n"})
	m := newImage(2)
	s.start()
	if err := s.upload("oss/app", m); err != nil {
		t.Fatal(err)
	}
	if status, err := s.put("oss/app", "deadly", m); err == nil {
		t.Fatalf("the process did not die at this tag; status %d", status)
	}
	s.cmd.Wait()
	s.cmd = nil
	s.env = []string{noDeath + "=1"}
	s.start()
	res, _, err := s.do("HEAD", "/v2/oss/app/manifests/deadly", "", nil, "Accept", acceptAll)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("image not found: %v %v", res, err)
	}
	s.waitDrained()
	s.checkTotals(t, map[string]int{"oss/app": 1}, 2, 1)
}

// checkTotals compares the numbers of pushes, layer records and posts, each unique.
func (s *server) checkTotals(t *testing.T, pushes map[string]int, layers, posts int) {
	t.Helper()
	for repository, want := range pushes {
		if got := s.counts(repository).Pushes; got != int64(want) {
			t.Errorf("%s: %d pushes counted, want %d", repository, got, want)
		}
	}
	s.checkUnique(t, layerCollection, layers, func(r record) string {
		return fmt.Sprint(r.Value["manifest"], r.Value["digest"])
	})
	s.checkUnique(t, postCollection, posts, func(r record) string { return fmt.Sprint(r.Value["text"]) })
	s.verifyRepo()
}

func (s *server) checkUnique(t *testing.T, collection string, want int, key func(record) string) {
	t.Helper()
	seen := map[string]bool{}
	for _, r := range s.records(t, s.did, collection) {
		if k := key(r); seen[k] {
			t.Errorf("%s: duplicate %s", collection, k)
		} else {
			seen[k] = true
		}
	}
	if len(seen) != want {
		t.Errorf("%s: %d, want %d", collection, len(seen), want)
	}
}

// The registry is killed repeatedly during 200 concurrent pushes and 200 concurrent
// pulls. Every acknowledged push has its records and its post once, and answered ≤
// counted ≤ requested for pushes and for pulls.
func TestKillInTheMiddle(t *testing.T) {
	t.Parallel()
	const each = 200
	s := newServer(t, settings{})
	s.start()
	base := newImage(1)
	s.push(t, "oss/pulled", "v1", base)

	var acknowledged sync.Map // manifest digest → tag
	var pulled, asked, pushed, put atomic.Int64
	n := rounds(t, 3)
	for round := range n {
		images := make([]image, each)
		for i := range images {
			images[i] = newImage(1)
		}
		var uploads sync.WaitGroup
		for i := range 8 {
			uploads.Go(func() {
				for j := i; j < each; j += 8 {
					if err := s.upload("oss/app", images[j]); err != nil {
						t.Error(err)
					}
				}
			})
		}
		uploads.Wait()
		var group sync.WaitGroup
		var answered atomic.Int64
		enough, fatal := make(chan struct{}), 1+rand.Int64N(2*each-1)
		count := func() {
			if answered.Add(1) == fatal {
				close(enough)
			}
		}
		for i := range each {
			group.Go(func() {
				put.Add(1)
				tag := fmt.Sprintf("v%d.%d", round, i)
				if status, _ := s.put("oss/app", tag, images[i]); status == 201 {
					count()
					pushed.Add(1)
					acknowledged.Store(images[i].digest, tag)
				}
			})
			group.Go(func() {
				asked.Add(1)
				if status, err := s.get("oss/pulled", "v1"); status == 200 && err == nil {
					count()
					pulled.Add(1)
				}
			})
		}
		<-enough // some requests are answered, others are in progress
		s.kill()
		group.Wait()
		s.start()
	}
	s.waitDrained()

	pulls, pushes := s.counts("oss/pulled").Pulls, s.counts("oss/app").Pushes
	within(t, "pulls", pulled.Load(), pulls, asked.Load())
	within(t, "pushes", pushed.Load(), pushes, put.Load())
	t.Logf("%d rounds: pulls answered %d, counted %d, requested %d; pushes answered %d, counted %d, requested %d",
		n, pulled.Load(), pulls, asked.Load(), pushed.Load(), pushes, put.Load())

	layers := map[string]int{}
	for _, r := range s.records(t, s.did, layerCollection) {
		layers[r.Value["manifest"].(string)]++
	}
	posts := map[string]int{}
	for _, r := range s.records(t, s.did, postCollection) {
		var tag string
		fmt.Sscanf(r.Value["text"].(string), "oss/app:%s was pushed", &tag)
		posts[tag]++
	}
	owner := "at://" + unescaped(s.did) + "/io.atcr.manifest/"
	acknowledged.Range(func(digest, tag any) bool {
		if got := layers[owner+digest.(string)[len("sha256:"):]]; got != 1 {
			t.Errorf("%s: %d records, want 1", tag, got)
		}
		if got := posts[tag.(string)]; got != 1 {
			t.Errorf("%s: %d posts, want 1", tag, got)
		}
		return true
	})
	for manifest, got := range layers {
		if got != 1 {
			t.Errorf("%s: %d records", manifest, got)
		}
	}
	for tag, got := range posts {
		if got != 1 {
			t.Errorf("%s: %d posts", tag, got)
		}
	}
	s.verifyRepo()
}

func within(t *testing.T, what string, answered, counted, requested int64) {
	t.Helper()
	if counted < answered || counted > requested {
		t.Errorf("%s: answered %d, counted %d, requested %d", what, answered, counted, requested)
	}
}
