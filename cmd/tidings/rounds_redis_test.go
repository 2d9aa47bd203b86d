package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counter/redistest"
)

// Two registries that share a Redis are killed over and over: the sum has what
// both have answered, and no more than both were asked.
func TestKillRoundsRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := fmt.Sprintf("announce: {tags: [\"*\"], collect: 300ms}\nredis: {addrs: [%q]}", redis.Addr)
	both := []*history{newHistory(t, newServer(t, settings{options: options})), newHistory(t, newServer(t, settings{options: options}))}
	for _, h := range both {
		h.expected = append(h.expected, "Redis may forget numbers")
	}
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
	for _, name := range both[0].names {
		var got, gets, put, puts int64
		for _, h := range both {
			told := h.repos[name]
			got, gets, put, puts = got+told.got, gets+told.gets, put+told.put, puts+told.puts
		}
		for _, h := range both {
			type numbers struct {
				Counts   map[string]int64
				Degraded bool
			}
			var n numbers
			for end := time.Now().Add(70 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				n = numbers{}
				h.json(t, "/tidings/api/v1/repositories/"+name, &n, h.token()...)
				if !n.Degraded && n.Counts["push"] >= put && n.Counts["pull"]+n.Counts["child"] >= got {
					break
				}
			}
			if n.Degraded {
				t.Errorf("%s: degraded", name)
			}
			within(t, name+" pulls", got, n.Counts["pull"]+n.Counts["child"], gets)
			within(t, name+" pushes", put, n.Counts["push"], puts)
			t.Logf("%s: pulls answered %d, counted %d, asked %d; pushes answered %d, counted %d, asked %d",
				name, got, n.Counts["pull"]+n.Counts["child"], gets, put, n.Counts["push"], puts)
		}
	}
	for _, h := range both {
		h.stop()
		h.ended()
		for _, p := range h.problems {
			t.Error(p)
		}
	}
}
