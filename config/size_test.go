package config

import (
	"testing"
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		bytes Size
		shown string
	}{
		"0": {0, "0B"}, "1": {1, "1B"}, "512B": {512, "512B"}, "1kB": {1000, "1kB"}, "1KB": {1000, "1kB"}, "1KiB": {1024, "1KiB"},
		"16MiB": {16 << 20, "16MiB"}, "5GB": {5e9, "5GB"}, "1.5GiB": {3 << 29, "1536MiB"}, "2 TiB": {2 << 40, "2TiB"},
		"1TB": {1e12, "1TB"}, " 3MB ": {3e6, "3MB"}, "1500": {1500, "1500B"},
	} {
		got, err := parseSize(text)
		if err != nil || got != want.bytes || got.String() != want.shown {
			t.Errorf("%q: got %d (%s), %v; want %d (%s)", text, int64(got), got, err, int64(want.bytes), want.shown)
		}
	}
	for _, bad := range []string{"", "GB", "1e3", "0x10", "inf", "NaN", "1_000", "5gb", "1 2MB", "1.2.3MB", "-1"} {
		if got, err := parseSize(bad); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", bad, int64(got))
		}
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, options string
		reserve, hold Size
	}{
		{"neither", "hold: {hostname: localhost}", 1 << 30, 1 << 30},
		{"neither, no hold", "", 1 << 30, 0},
		{"reserve", "reserve: 5MiB\nhold: {hostname: localhost}", 5 << 20, 5 << 20},
		{"reserve, no hold", "reserve: 5MiB", 5 << 20, 0},
		{"hold.reserve applies to both", "hold: {hostname: localhost, reserve: 7MiB}", 7 << 20, 7 << 20},
		{"both", "reserve: 5MiB\nhold: {hostname: localhost, reserve: 7MiB}", 5 << 20, 7 << 20},
		{"the minimum", "reserve: 1MiB", 1 << 20, 0},
	} {
		o := mustRead(t, "data: /d\n"+tc.options, "")
		var hold Size
		if o.Hold != nil {
			hold = o.Hold.Reserve
		}
		if o.Reserve != tc.reserve || hold != tc.hold {
			t.Errorf("%s: reserve %s, hold.reserve %s; want %s, %s", tc.name, o.Reserve, hold, tc.reserve, tc.hold)
		}
	}
	for options, want := range map[string]string{
		"reserve: 0":      "options.reserve: 0B is too small; the minimum is 1MiB",
		"reserve: 1023kB": "options.reserve: 1023kB is too small; the minimum is 1MiB",
		"hold: {hostname: localhost, reserve: 0}": "options.hold.reserve: 0B is too small; the minimum is 1MiB",
		"reserve: {}": "options.reserve: is a section, but must be a size like \"16MiB\" or \"5GB\"",
	} {
		if _, _, err := FromRegistry(registry(t, "data: /d\n"+options, "")); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", options, err, want)
		}
	}
}
