package post

import (
	"math"
	"testing"
)

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		1: "1 B", 999: "999 B", 1000: "1 kB", 1049: "1 kB", 1050: "1.1 kB", 99_949: "99.9 kB", 99_950: "100 kB",
		999_499: "999 kB", 999_500: "1 MB", 45_230_000: "45.2 MB", 1_234_000_000: "1.2 GB", math.MaxInt64: "9.2 EB",
	} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d): got %q, want %q", n, got, want)
		}
	}
}

func TestMiddle(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		s    string
		n    int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "a…d"}, {"abcdefgh", 4, "a…gh"}, {"abcdefgh", 7, "abc…fgh"},
		{"e\u0301e\u0301e\u0301e\u0301", 3, "e\u0301…e\u0301"}, {"", 3, ""},
	} {
		if got := middle(tc.s, tc.n); got != tc.want {
			t.Errorf("middle(%q, %d): got %q, want %q", tc.s, tc.n, got, tc.want)
		}
	}
}
