package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// crash kills the process with SIGKILL.
func (h *workload) crash() {
	h.kill()
	h.checkLog()
}

// The registry is killed repeatedly at random moments of a random workload. In the
// end each stored manifest has its records and no deleted one has any, images are
// announced once, and all answered requests are counted.
func TestKillRounds(t *testing.T) {
	t.Parallel()
	h := newWorkload(t, newServer(t, settings{}))
	r := rand.New(rand.NewPCG(h.seed, 0))
	n := rounds(t, 3)
	for round := range n {
		if r.IntN(8) == 0 {
			h.startAndCrash(time.Duration(r.IntN(700)) * time.Millisecond)
		}
		h.start()
		enough := make(chan struct{})
		go func() {
			until, end := h.steps.Load()+r.Int64N(150), time.Now().Add(2*time.Second)
			for h.steps.Load() < until && time.Now().Before(end) {
				pause()
			}
			time.Sleep(time.Duration(r.IntN(20_000)) * time.Microsecond)
			h.cmd.Process.Kill()
			close(enough)
		}()
		h.work(uint64(round), make(chan struct{}))
		<-enough
		h.crash()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	h.check(t, func(f snapshot) { h.checkExpectedPosts(t, f) })

	h.start()
	stop := make(chan struct{})
	until := h.steps.Load() + 400
	go func() {
		for end := time.Now().Add(time.Minute); h.steps.Load() < until && time.Now().Before(end); {
			pause()
		}
		close(stop)
	}()
	h.work(uint64(n), stop)
	h.waitDrained()
	h.stop()
	h.checkLog()
	h.check(t, func(f snapshot) { h.checkExpectedPosts(t, f) })
}

// startAndCrash starts the registry and kills it after a delay, at any stage of its start.
func (h *workload) startAndCrash(after time.Duration) {
	h.t.Helper()
	h.log = &logBuffer{}
	h.cmd = h.command("serve", h.config)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(after)
	h.crash()
}

// killRound starts the registry, works for a round, and kills the process after a delay.
func (h *workload) killRound(round uint64, after time.Duration) {
	h.t.Helper()
	stop := make(chan struct{})
	h.start()
	process := h.cmd.Process
	go func() {
		time.Sleep(after)
		process.Kill()
		close(stop)
	}()
	h.work(round, stop)
	<-stop
	h.crash()
}
