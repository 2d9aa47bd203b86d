package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// A step is something that happens to the servers or to the network between them.
type step struct {
	at    time.Duration // since the first push
	what  action
	fault faultproxy.Fault // of callsFail
	lasts time.Duration    // until calls succeed again, or the PDS is started again
	call  time.Duration    // of steps of processes: since a call of applyWrites began; 0: at once
}

type action int

const (
	callsFail      action = iota // the proxy makes calls fail
	tokenExpires                 // the access token
	sessionEnds                  // access and refresh token
	registryKilled               // kill -9, and started again at once
	pdsStops                     // SIGTERM, and started again after a while
	pdsKilled                    // kill -9, and started again after a while
)

var actionNames = [...]string{"calls fail", "access token expires", "session ends", "registry killed", "PDS stops", "PDS killed"}

func (s step) String() string {
	text := actionNames[s.what]
	if s.what == callsFail {
		text = s.fault.String()
	}
	if s.call > 0 {
		text += fmt.Sprintf(", %s after a call begins", s.call)
	}
	if s.lasts > 0 {
		text += fmt.Sprintf(", for %s", s.lasts)
	}
	return text
}

// ofProcess reports whether the step is about a process. These steps are run one
// after another, alongside those of the network.
func (s step) ofProcess() bool { return s.what >= registryKilled }

// schedule returns the steps of a run, in the order of their times. The same seed and
// duration result in the same steps.
func schedule(seed uint64, duration time.Duration) []step {
	random := rand.New(rand.NewPCG(seed, uint64(duration)))
	steps := append(networkSteps(random, duration), processSteps(random, duration)...)
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return steps
}

// networkSteps are faults of the proxy, one at a time: each kind once in every round.
func networkSteps(random *rand.Rand, duration time.Duration) []step {
	var steps []step
	at := between(random, time.Second, 3*time.Second)
	for {
		for _, s := range round(random) {
			s.at = at
			if s.what == callsFail {
				s.lasts = between(random, 300*time.Millisecond, 3*time.Second)
				if random.IntN(8) == 0 { // long enough for several attempts
					s.lasts += between(random, 4*time.Second, 10*time.Second)
				}
			}
			if s.at+s.lasts > duration {
				return steps
			}
			steps = append(steps, s)
			at += s.lasts + between(random, 300*time.Millisecond, 2*time.Second)
		}
	}
}

// round returns each step of the network once, in random order.
func round(random *rand.Rand) []step {
	steps := []step{{what: tokenExpires}, {what: sessionEnds}}
	for kind := faultproxy.Cut; kind <= faultproxy.RateLimitReset; kind++ {
		f := faultproxy.Fault{Kind: kind}
		if random.IntN(2) == 0 {
			f.Method = applyWrites
		}
		if kind == faultproxy.Delay || kind >= faultproxy.RetryAfter {
			f.For = between(random, time.Second, 4*time.Second).Truncate(time.Second)
		}
		steps = append(steps, step{what: callsFail, fault: f})
		if kind.Delivers() {
			f.Delivered = true
			steps = append(steps, step{what: callsFail, fault: f})
		}
	}
	random.Shuffle(len(steps), func(i, k int) { steps[i], steps[k] = steps[k], steps[i] })
	return steps
}

// callTime is longer than the PDS takes for most calls.
const callTime = 400 * time.Millisecond

// processSteps stop and start the servers, most often while a call is in flight, with
// enough time between two steps to start them again.
func processSteps(random *rand.Rand, duration time.Duration) []step {
	var steps []step
	at := between(random, 2*time.Second, 8*time.Second)
	for {
		round := []action{registryKilled, registryKilled, registryKilled, pdsStops, pdsKilled}
		random.Shuffle(len(round), func(i, k int) { round[i], round[k] = round[k], round[i] })
		for _, what := range round {
			s := step{at: at, what: what}
			if what != registryKilled {
				s.lasts = between(random, 0, 5*time.Second)
			}
			if random.IntN(4) > 0 {
				s.call = between(random, time.Millisecond, callTime)
			}
			if s.at+s.lasts > duration {
				return steps
			}
			steps = append(steps, s)
			at += s.lasts + between(random, 6*time.Second, 16*time.Second)
		}
	}
}

// between returns a duration in [least, most), to a millisecond.
func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(random.Int64N(int64(most-least)))).Truncate(time.Millisecond)
}
