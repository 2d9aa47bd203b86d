package post

import (
	"testing"
)

func TestPlatform(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ system, architecture, variant, want string }{
		{"linux", "amd64", "", "linux/amd64"},
		{"linux", "amd64", "v3", "linux/amd64/v3"},
		{"linux", "arm", "v7", "linux/arm/v7"},
		{"linux", "arm64", "v8.1", "linux/arm64/v8.1"},
		{"windows", "amd64", "", "windows/amd64"},
		{"wasi", "wasm", "", "wasi/wasm"},
		{"linux", "arm64", "evil.com", "linux/arm64"},
		{"linux", "arm64", "v8\n", "linux/arm64"},
		{"linux", "", "", ""},
		{"", "amd64", "", ""},
		{"unknown", "unknown", "", ""},
		{"free", "evil_coins", "evil.com", ""},
		{"Linux", "amd64", "", ""},
		{"linux\u202e", "amd64", "", ""},
	} {
		if got := Platform(c.system, c.architecture, c.variant); got != c.want {
			t.Errorf("Platform(%q, %q, %q) = %q, want %q", c.system, c.architecture, c.variant, got, c.want)
		}
	}
}
