package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// newRedisWorkload is newWorkload with counters summed in Redis.
func newRedisWorkload(t *testing.T, redis *redistest.Server) *workload {
	options := fmt.Sprintf("announce: {tags: [\"*\"], collect: 300ms, cooldown: 0s, daily_limit: 0}\nredis: {addrs: [%q]}", redis.Addr)
	h := newWorkload(t, newServer(t, settings{options: options}))
	h.redis = redis.Client()
	h.expected = append(h.expected, "Redis may lose counts", "counters continue under a new registry id",
		"another data folder has the registry id in Redis") // the lock file was restored as well
	return h
}

// inRedis returns the pulls and pushes in Redis, by repository.
func (h *workload) inRedis() map[string][2]int64 {
	h.t.Helper()
	all, err := (&rediscounts.Sum{DB: rediscounts.New(h.redis, "")}).Repositories(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	sums := map[string][2]int64{}
	for _, r := range all {
		sums[r.Name] = [2]int64{r.Counts[counts.Pull] + r.Counts[counts.Child], r.Counts[counts.Push]}
	}
	return sums
}

// checkSums checks that the sums of each registry include all requests that all of
// them answered, and no more than were sent.
func (h *workload) checkSums(t *testing.T, others ...*workload) {
	t.Helper()
	all := append([]*workload{h}, others...)
	end := time.Now().Add(70 * time.Second)
	for _, name := range h.names {
		var got, gets, put, puts int64
		for _, h := range all {
			repoLog := h.repos[name]
			got, gets, put, puts = got+repoLog.got, gets+repoLog.gets, put+repoLog.put, puts+repoLog.puts
		}
		if got+put == 0 {
			continue // the API may not list it
		}
		for _, h := range all {
			var pulls, pushes int64
			enough := false
			for ; !enough && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				pulls, pushes, enough = h.sums(t, name)
				enough = enough && pulls >= got && pushes >= put
			}
			if !enough {
				t.Errorf("%s: sums are missing or lower than the answered requests", name)
			}
			within(t, name+" pulls", got, pulls, gets)
			within(t, name+" pushes", put, pushes, puts)
			t.Logf("%s: pulls answered %d, counted %d, sent %d; pushes answered %d, counted %d, sent %d",
				name, got, pulls, gets, put, pushes, puts)
		}
	}
}

// waitPublishing waits until the registry publishes its counts. It may first watch
// for 45 seconds whether another process uses its id.
func (h *workload) waitPublishing(t *testing.T) {
	t.Helper()
	var health struct {
		Redis struct{ Current time.Time } // when it last had all counts
	}
	for end := time.Now().Add(70 * time.Second); health.Redis.Current.IsZero(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("counts are not published to Redis")
		}
		h.json(t, "/tidings/api/v1/health", &health, h.token()...)
	}
}

// sums returns the sums of a repository, and whether they are exact.
func (h *workload) sums(t *testing.T, name string) (pulls, pushes int64, exact bool) {
	t.Helper()
	res, body, err := h.do("GET", "/tidings/api/v1/repositories/"+name, "", nil, h.token()...)
	if err != nil {
		t.Fatal(err)
	}
	var n struct {
		Counts   map[string]int64
		Degraded bool
	}
	if err := json.Unmarshal(body, &n); err != nil {
		t.Fatalf("%s: %v: %s", res.Status, err, body)
	}
	return n.Counts["pull"] + n.Counts["child"], n.Counts["push"], res.StatusCode == http.StatusOK && !n.Degraded
}

// Two registries that share a Redis are killed repeatedly. The sums include all
// requests that both answered, and no more than were sent.
func TestKillRoundsRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	both := []*workload{newRedisWorkload(t, redis), newRedisWorkload(t, redis)}
	r := rand.New(rand.NewPCG(both[0].seed, 0))
	for round := range rounds(t, 3) {
		for _, h := range both {
			h.killRound(uint64(round), time.Duration(100+r.IntN(900))*time.Millisecond)
		}
	}
	for _, h := range both {
		h.restartUntilIdle(t)
		h.checkConsistent(t)
		h.start()
	}
	both[0].checkSums(t, both[1])
	for _, h := range both {
		h.stop()
		h.checkLog()
		for _, p := range h.problems {
			t.Error(p)
		}
	}
}
