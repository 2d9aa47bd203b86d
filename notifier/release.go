package notifier

import (
	"regexp"
	"strings"
)

// Tags that are versions: numbers, with or without a v, and behind a dash what
// makes it a pre-release (https://semver.org, 9).
var (
	release    = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*$`)
	preRelease = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*-.`)
)

// releases reports whether a tag is the release of which another is a
// pre-release, as v1.0.0 is of v1.0.0-rc.1.
func releases(tag, pre string) bool {
	return release.MatchString(tag) && preRelease.MatchString(pre) &&
		strings.HasPrefix(strings.TrimPrefix(pre, "v"), strings.TrimPrefix(tag, "v")+"-")
}
