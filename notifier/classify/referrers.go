package classify

import "strings"

// ReferrersTag reports whether a tag follows the referrers tag schema: a client
// that finds no referrers API keeps the list of what refers to a manifest under
// the manifest's digest with "-" in place of ":". cosign appends what the
// content is, such as ".sig" or ".att"; suffix is that word without the dot, or
// empty. (https://github.com/opencontainers/distribution-spec, "Referrers Tag
// Schema")
//
// The encoded part of the digest may be cut, to 64 characters. A tag with
// anything else after it, such as "sha256-<hex>-debug", is a tag like any other.
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
