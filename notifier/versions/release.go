package versions

import (
	"regexp"
	"strings"
)

// Tags that are versions: numbers with or without a v; after a hyphen follows what
// makes it a pre-release (https://semver.org, 9).
var (
	releaseTag    = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*$`)
	preReleaseTag = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*-.`)
)

// IsPreRelease reports whether a tag is a version that is a pre-release.
func IsPreRelease(tag string) bool { return preReleaseTag.MatchString(tag) }

// IsReleaseOf reports whether a tag is the release of a pre-release, as v1.0.0 is of
// v1.0.0-rc.1.
func IsReleaseOf(tag, pre string) bool {
	return releaseTag.MatchString(tag) && IsPreRelease(pre) &&
		strings.HasPrefix(strings.TrimPrefix(pre, "v"), strings.TrimPrefix(tag, "v")+"-")
}
