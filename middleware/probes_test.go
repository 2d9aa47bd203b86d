package middleware

import "testing"

// The probes answer 200, and the one for readiness 503 while pushes are refused.
func TestProbes(t *testing.T) {
	t.Parallel()
	ready := true
	mounts := probes(func() bool { return ready })
	for _, test := range []struct {
		ready       bool
		live, probe int
	}{{true, 200, 200}, {false, 200, 503}} {
		ready = test.ready
		for i, want := range []int{test.live, test.probe} {
			if got := get(t, mounts[i].handler, mounts[i].path); got.Code != want {
				t.Errorf("ready %v: %s answers %d, want %d", test.ready, mounts[i].path, got.Code, want)
			}
		}
	}
}
