package versions

import "testing"

func TestIsReleaseOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		tag, pre string
		want     bool
	}{
		{"v1.0.0", "v1.0.0-rc.1", true}, {"1.0.0", "v1.0.0-rc.1", true}, {"v1.0.0", "1.0.0-alpha", true}, {"v1", "v1-beta", true},
		{"v1.0.0", "v1.0.1-rc.1", false}, {"v1.0", "v1.0.0-rc.1", false}, {"v1.0.0-rc.2", "v1.0.0-rc.1", false}, {"v1.0.0", "v1.0.0", false},
		{"latest", "latest-1", false}, {"v1.0.0", "v1.0.0-", false}, {"v1.0.0-rc", "v1.0.0-rc-1", false},
	} {
		if got := IsReleaseOf(test.tag, test.pre); got != test.want {
			t.Errorf("%s after %s: %v, want %v", test.tag, test.pre, got, test.want)
		}
	}
}
