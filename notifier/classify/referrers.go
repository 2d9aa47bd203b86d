package classify

import "strings"

// ReferrersTag reports whether a tag follows the referrers tag schema of the OCI
// distribution specification: clients of a registry without the referrers API push the
// list of a manifest's referrers under the manifest's digest with "-" in place of ":".
// cosign appends a suffix for the kind of content, such as ".sig" or ".att", which is
// returned without the dot.
// (https://github.com/opencontainers/distribution-spec, "Referrers Tag Schema")
//
// The schema cuts the encoded part of a digest to 64 characters; longer ones are accepted.
// A tag with another suffix, such as "sha256-<hex>-debug", is an ordinary tag.
func ReferrersTag(tag string) (suffix string, ok bool) {
	rest, ok := strings.CutPrefix(tag, "sha256-")
	if !ok {
		rest, ok = strings.CutPrefix(tag, "sha512-")
	}
	if !ok {
		return "", false
	}
	n := 0
	for n < len(rest) && isHex(rest[n]) {
		n++
	}
	if n < 64 || n > 128 {
		return "", false
	}
	suffix, ok = strings.CutPrefix(rest[n:], ".")
	if !ok {
		return "", n == len(rest)
	}
	for i := range len(suffix) {
		if suffix[i] < 'a' || suffix[i] > 'z' {
			return "", false
		}
	}
	return suffix, suffix != ""
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }
