package race

import (
	"flag"
	"math/rand/v2"
	"testing"
)

// OneIn skips a test in all but one of n runs, at random, with the race detector. It is for the
// many tests of a package that run the same goroutines. Tests selected with -run are not skipped.
func OneIn(t testing.TB, n int) {
	t.Helper()
	if Enabled && flag.Lookup("test.run").Value.String() == "" && rand.IntN(n) > 0 {
		t.Skipf("with the race detector it runs once in %d runs", n)
	}
}
