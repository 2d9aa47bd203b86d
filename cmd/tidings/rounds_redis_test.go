package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/counter/redistest"
)

// newRedisHistory is newHistory of a registry that counts in a Redis.
func newRedisHistory(t *testing.T, redis *redistest.Server) *history {
	options := fmt.Sprintf("announce: {tags: [\"*\"], collect: 300ms}\nredis: {addrs: [%q]}", redis.Addr)
	h := newHistory(t, newServer(t, settings{options: options}))
	h.redis = redis.Client()
	h.expected = append(h.expected, "Redis may lose numbers", "counters continue under a new registry id",
		"another data folder that may be in use") // its lock file was restored, too
	return h
}

// inRedis is what Redis has: pulls and pushes, by repository.
func (h *history) inRedis() map[string][2]int64 {
	h.t.Helper()
	all, err := (&counter.Sum{Redis: h.redis}).Repositories(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	sums := map[string][2]int64{}
	for _, r := range all {
		sums[r.Name] = [2]int64{r.Counts[counter.Pull] + r.Counts[counter.Child], r.Counts[counter.Push]}
	}
	return sums
}

// sumsHold checks that the sums, which each of the registries shows, have what all
// of them have answered, and no more than they were asked.
func (h *history) sumsHold(t *testing.T, others ...*history) {
	t.Helper()
	all := append([]*history{h}, others...)
	end := time.Now().Add(70 * time.Second)
	for _, name := range h.names {
		var got, gets, put, puts int64
		for _, h := range all {
			told := h.repos[name]
			got, gets, put, puts = got+told.got, gets+told.gets, put+told.put, puts+told.puts
		}
		if got+put == 0 {
			continue // it may not be known
		}
		for _, h := range all {
			var pulls, pushes int64
			enough := false
			for ; !enough && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				pulls, pushes, enough = h.sums(t, name)
				enough = enough && pulls >= got && pushes >= put
			}
			if !enough {
				t.Errorf("%s: the sums are not shown, or less than what was answered", name)
			}
			within(t, name+" pulls", got, pulls, gets)
			within(t, name+" pushes", put, pushes, puts)
			t.Logf("%s: pulls answered %d, counted %d, asked %d; pushes answered %d, counted %d, asked %d",
				name, got, pulls, gets, put, pushes, puts)
		}
	}
}

// publishes waits until the registry sends to Redis what it counts: before that it
// may have to watch for 45 seconds whether another does under its id.
func (h *history) publishes(t *testing.T) {
	t.Helper()
	var health struct {
		Redis struct{ Current time.Time } // when it last had all numbers
	}
	for end := time.Now().Add(70 * time.Second); health.Redis.Current.IsZero(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Redis is not sent what is counted")
		}
		h.json(t, "/tidings/api/v1/health", &health, h.token()...)
	}
}

// sums asks for those of a repository, which are not exact while Redis is behind.
func (h *history) sums(t *testing.T, name string) (pulls, pushes int64, exact bool) {
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

// Two registries that share a Redis are killed over and over: the sum has what
// both have answered, and no more than both were asked.
func TestKillRoundsRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	both := []*history{newRedisHistory(t, redis), newRedisHistory(t, redis)}
	r := rand.New(rand.NewPCG(both[0].seed, 0))
	for round := range rounds(t, 3) {
		for _, h := range both {
			stop := make(chan struct{})
			h.start()
			process := h.cmd.Process
			go func() {
				time.Sleep(time.Duration(100+r.IntN(900)) * time.Millisecond)
				process.Kill()
				close(stop)
			}()
			h.work(uint64(round), stop)
			<-stop
			h.dies()
		}
	}
	for _, h := range both {
		h.settle(t)
		h.agree(t)
		h.start()
	}
	both[0].sumsHold(t, both[1])
	for _, h := range both {
		h.stop()
		h.ended()
		for _, p := range h.problems {
			t.Error(p)
		}
	}
}
