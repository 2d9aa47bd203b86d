package config

import (
	"regexp"
	"slices"

	"github.com/tidings-dev/tidings/internal/glob"
)

// Visible reports whether a repository is public: whether a pattern of `public:` matches
// it. This is the only rule.
func (o *Options) Visible(repository string) bool {
	return slices.ContainsFunc(o.Public, func(pattern string) bool { return glob.MatchRepository(pattern, repository) })
}

// versionTag is three numbers, with or without a v. Pre-releases and variants
// (-rc.1, -alpine) do not match: by default few tags are announced.
var versionTag = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+$`)

// Match reports whether a tag is announced.
func (a *Announce) Match(tag string) bool {
	if len(a.Tags) == 0 {
		return versionTag.MatchString(tag)
	}
	return slices.ContainsFunc(a.Tags, func(pattern string) bool { return glob.MatchTag(pattern, tag) })
}
