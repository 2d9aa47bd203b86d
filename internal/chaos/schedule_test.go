package main

import (
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/faultproxy"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	const duration = 2 * time.Minute
	if a, b := schedule(1, duration), schedule(1, duration); !slices.Equal(a, b) {
		t.Errorf("one seed has two schedules:\n%v\n%v", a, b)
	}
	if a, b := schedule(1, duration), schedule(2, duration); slices.Equal(a, b) {
		t.Error("two seeds have one schedule")
	}
	for seed := range uint64(20) {
		seen := map[string]bool{}
		network := time.Duration(0) // until the last step of the network has ended
		for _, s := range schedule(seed, duration) {
			seen[actionNames[s.what]] = true
			if s.what == callsFail {
				seen[faultproxy.Fault{Kind: s.fault.Kind, Delivered: s.fault.Delivered}.String()] = true
			}
			if s.at < 0 || s.at+s.lasts > duration {
				t.Errorf("seed %d: %s at %s, lasts %s, in a run of %s", seed, s, s.at, s.lasts, duration)
			}
			if s.ofProcess() {
				continue
			}
			if s.at < network {
				t.Errorf("seed %d: %s at %s begins before %s, when the last one ends", seed, s, s.at, network)
			}
			network = s.at + s.lasts
		}
		// Two minutes are enough for each kind of fault, before and after delivery.
		if want := 5 + 9 + 6; len(seen) < want {
			t.Errorf("seed %d: only %d of %d kinds of steps: %v", seed, len(seen), want, seen)
		}
	}
}
