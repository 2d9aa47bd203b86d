package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/race"
)

// Sinks are paused and resumed, events skipped and dead letters retried, while the process is
// killed at random. At the end, when all letters have been retried, each push has its
// records, its post and its count once.
func TestSinksKilled(t *testing.T) {
	t.Parallel()
	rounds := 3
	if race.Enabled {
		rounds = 1
	}
	s := newServer(t, settings{})
	sinks := []string{"records", "announce", "counters"}
	s.start()
	for round := range rounds {
		name := sinks[round%len(sinks)]
		s.run("sinks", "pause", s.config, name)
		for i := range 3 {
			repository := fmt.Sprint("oss/app", i)
			s.push(t, repository, fmt.Sprint("v", round), newImage(2))
		}
		killed := s.killSoon()
		for range 2 {
			s.run("sinks", "skip", "--yes", s.config, name)
		}
		s.run("sinks", "resume", s.config, name)
		s.retryAll()
		<-killed
		s.kill()
		s.start()
	}
	for _, name := range sinks {
		s.run("sinks", "resume", s.config, name) // fails if it is not paused
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s.waitDrained()
		if s.retryAll() == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("letters stay\n%s", s.log)
		}
	}
	if out, code := s.run("status", s.config); code != 0 {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	s.checkTotals(t, map[string]int{"oss/app0": rounds, "oss/app1": rounds, "oss/app2": rounds}, 2*3*rounds, 3*rounds)
}

// killSoon kills the process after up to 200 ms. The channel is closed then.
func (s *server) killSoon() <-chan struct{} {
	done := make(chan struct{})
	process := s.cmd.Process
	time.AfterFunc(rand.N(200*time.Millisecond), func() {
		process.Kill()
		close(done)
	})
	return done
}

// noLetters is the output of `dead list` without dead letters.
const noLetters = "There are no dead letters.\n"

// retryAll retries all dead letters, as far as the process runs, and returns how many there
// are.
func (s *server) retryAll() (letters int) {
	out, code := s.run("dead", "list", s.config)
	if code != 0 || out == noLetters {
		return 0
	}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if name, _, ok := strings.Cut(line, " "); ok {
			s.run("dead", "retry", s.config, name)
			letters++
		}
	}
	return letters
}
