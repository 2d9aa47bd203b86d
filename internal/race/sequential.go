package race

import "testing"

// SkipSequential skips a test that takes long with the race detector and in which nothing runs
// concurrently, such as one that measures how many bytes a row takes.
func SkipSequential(t testing.TB) {
	t.Helper()
	if Enabled {
		t.Skip("nothing runs concurrently in this test")
	}
}
