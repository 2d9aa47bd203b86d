package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// Two registries publish to one Redis that is killed, flushed and restored from an older
// dump during pushes and pulls. In the end both show exact sums.
func TestRedisLosesCounts(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := fmt.Sprintf("redis: {addrs: [%q]}", redis.Addr)
	both := []*server{newServer(t, settings{options: options}), newServer(t, settings{options: options})}
	var pulls, pushes int64
	work := func() {
		t.Helper()
		var group sync.WaitGroup
		for _, s := range both {
			m := newImage(1)
			s.push(t, "oss/app", "v1", m)
			pushes++
			group.Go(func() {
				for range 20 {
					if status, err := s.get("oss/app", "v1"); status != 200 {
						t.Errorf("%d %v", status, err)
					}
				}
			})
			pulls += 20
		}
		group.Wait()
	}
	exact := func(after string) {
		t.Helper()
		for _, s := range both {
			s.waitDrained()
			var got summed
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if got = s.summed("oss/app"); got.Pulls == pulls && got.Pushes == pushes && !got.Degraded {
					break
				}
			}
			if got.Pulls != pulls || got.Pushes != pushes {
				t.Errorf("after %s: %d pulls and %d pushes, want %d and %d", after, got.Pulls, got.Pushes, pulls, pushes)
			}
		}
	}
	for _, s := range both {
		s.start()
	}
	work()
	exact("the first pushes")
	dump := redis.Dump()
	work()
	exact("more")
	redis.Kill()
	work()
	redis.Restart()
	work()
	exact("a kill")
	work()
	redis.Flush()
	work()
	exact("a flush")
	redis.Restore(dump)
	work()
	exact("an older dump")
	both[0].kill()
	both[0].start()
	work()
	exact("a killed registry")
	for _, s := range both {
		s.verifyRepo()
		s.stop()
	}
}

// While Redis does not answer, a command prints one line.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "data: ./data\nredis: {addrs: [\"127.0.0.1:1\"]}")
	out, errs, code := tidings(t, dir, nil, "redis", "list", "c.yml")
	if code != 1 || out != "" || !strings.HasPrefix(errs, "Error: list registry ids: ") || strings.Count(errs, "\n") != 1 {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
}

// summed are the sums of all registries or, if degraded, the registry's own counts.
type summed struct {
	repositoryAnswer
	Degraded bool `json:"degraded"`
}

// summed gets the counts of a repository, which Redis may not have yet.
func (s *server) summed(repository string) summed {
	s.t.Helper()
	res, body, err := s.do("GET", "/tidings/api/v1/repositories/"+repository, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer summed
	if res.StatusCode == http.StatusNotFound {
		return answer
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		s.t.Fatalf("%s: %v: %s", res.Status, err, body)
	}
	return answer
}
