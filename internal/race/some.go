package race

import "iter"

// Some yields the numbers from 0 to n-1; with the race detector every seventh of them, which
// is enough for a test that runs the same code for each number.
func Some[N int | uint64](n N) iter.Seq[N] {
	return func(yield func(N) bool) {
		step := N(1)
		if Enabled {
			step = 7
		}
		for i := N(0); i < n; i += step {
			if !yield(i) {
				return
			}
		}
	}
}
