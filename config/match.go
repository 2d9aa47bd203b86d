package config

import (
	"slices"

	"github.com/tidings-dev/tidings/internal/glob"
)

// Visible reports whether a repository is public: whether a pattern of `public:` matches
// it. This is the only rule.
func (o *Options) Visible(repository string) bool {
	return slices.ContainsFunc(o.Public, func(pattern string) bool { return glob.MatchRepository(pattern, repository) })
}
