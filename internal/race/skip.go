package race

import "testing"

// Skip skips a test that takes long with the race detector and finds nothing with it, for the
// reason why.
func Skip(t testing.TB, why string) {
	t.Helper()
	if Enabled {
		t.Skip(why)
	}
}
