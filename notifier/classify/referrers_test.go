package classify

import (
	"strings"
	"testing"
)

func TestReferrersTag(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0a", 32)
	for tag, want := range map[string]struct {
		suffix string
		ok     bool
	}{
		"sha256-" + hex:             {"", true},
		"sha256-" + hex + ".sig":    {"sig", true},
		"sha512-" + hex:             {"", true},
		"sha512-" + hex + hex:       {"", true},
		"sha512-" + hex + hex[1:]:   {"", true},
		"sha256-" + hex + "-x":      {"", false},
		"sha256-" + hex + "x":       {"", false},
		"sha256-" + hex + ".":       {"", false},
		"sha256-" + hex + ".sig2":   {"", false},
		"sha256-" + hex + ".a.b":    {"", false},
		"sha256-" + hex[1:]:         {"", false},
		"sha256-" + hex[1:] + "g":   {"", false},
		"sha1-" + hex:               {"", false},
		"sha512-" + hex + hex + hex: {"", false},
		"v1":                        {"", false},
		"":                          {"", false},
	} {
		if suffix, ok := ReferrersTag(tag); suffix != want.suffix || ok != want.ok {
			t.Errorf("ReferrersTag(%q) = %q, %v; want %q, %v", tag, suffix, ok, want.suffix, want.ok)
		}
	}
}
