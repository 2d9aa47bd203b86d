package glob

import "testing"

func TestMatchRepository(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		glob, repository string
		want             bool
	}{
		{"**", "app", true},
		{"**", "a/b/c", true},
		{"*", "app", true},
		{"*", "a/b", false},
		{"oss/**", "oss/app", true},
		{"oss/**", "oss/a/b", true},
		{"oss/**", "oss", false},
		{"oss/**", "ossified/app", false},
		{"oss/*", "oss/a/b", false},
		{"oss", "oss", true},
		{"oss", "oss/app", false},
		{"**/public", "a/b/public", true},
		{"**/public", "a/b/public/x", false},
		{"{oss,team}/**", "team/app", true},
		{"{oss/**,pub/**}", "oss", false},
		{"{oss/**,pub/**}", "pub", false},
		{"{oss/**,pub/**}", "oss/app", true},
		{"{oss/**,pub/**}", "pub/a/b", true},
		{"{oss,pub}{/**,/x}", "oss", false},
		{"{oss,pub}{/**,/x}", "pub/app", true},
		{"{a/{oss/**,x},b}", "a/oss", false},
		{"{a/{oss/**,x},b}", "a/oss/app", true},
		{"{a/{oss/**,x},b}", "a/x", true},
		{"{a/{oss/**,x},b}", "b", true},
		{"{oss/**,pub}/x", "oss/x", true},
		{"{oss/**,pub}/x", "oss", false},
		{"oss{,/**}", "oss", true},
		{"oss{,/**}", "oss/app", true},
		{"oss/**/**", "oss", false},
		{"oss/**/**", "oss/app", true},
		{"oss/{**,x}", "oss", false},
		{"oss/{**,x}", "oss/app", true},
		{`oss/\{**`, "oss/{x", true},
		{"[{]/**", "{", false},
		{"[{]/**", "{/app", true},
		{"a b", "a b", true},
		{"**", "did:plc:abc/oss/app", true},
		{"*", "did:plc:abc/app", false},
		{"oss/**", "did:plc:abc/oss/app", false},
		{"did:plc:abc/**", "did:plc:abc/oss/app", true},
		{"did:plc:abc/**", "did:plc:abcd/oss/app", false},
		{"did:plc:abc/oss/*", "did:plc:abc/oss/app", true},
		{"did:*/oss/*", "did:web:localhost%3A5000/oss/app", true},
	} {
		if got := MatchRepository(tc.glob, tc.repository); got != tc.want {
			t.Errorf("%q matches %q: got %v, want %v", tc.glob, tc.repository, got, tc.want)
		}
	}
}

func TestMatchTag(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		glob, tag string
		want      bool
	}{
		{"*", "latest", true},
		{"v*", "v1.2.3-rc.1", true},
		{"v*", "1.2.3", false},
		{"v[0-9]*", "very", false},
		{"{edge,latest}", "edge", true},
	} {
		if got := MatchTag(tc.glob, tc.tag); got != tc.want {
			t.Errorf("%q matches %q: got %v, want %v", tc.glob, tc.tag, got, tc.want)
		}
	}
}
