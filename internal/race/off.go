//go:build !race

package race

// Enabled is true with the race detector.
const Enabled = false
