// Package rounds configures tests of random events: how many rounds they run, and with
// which seed.
package rounds

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
)

// variable has the number of rounds of all tests.
const variable = "TIDINGS_KILL_ROUNDS"

// Configured reports whether TIDINGS_KILL_ROUNDS sets the number of rounds, so that tests which
// otherwise draw some of their cases run all.
func Configured() bool { return os.Getenv(variable) != "" }

// Number returns the number of rounds of a test, which TIDINGS_KILL_ROUNDS sets. With the
// race detector, which makes them much slower, it is a third of the usual number.
func Number(t testing.TB, usual int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" && race.Enabled {
		return (usual + 2) / 3
	}
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// Seed is TIDINGS_ROUNDS_SEED, or random. It is logged.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64N(1_000_000)
	if s := os.Getenv("TIDINGS_ROUNDS_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("TIDINGS_ROUNDS_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("TIDINGS_ROUNDS_SEED=%d", seed)
	return seed
}
