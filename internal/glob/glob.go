// Package glob matches the names of repositories and tags with the globs of the
// configuration.
//
// The language is that of doublestar: * matches within a path component, ** any
// number of components, ? one character, [a-z] a class and {a,b} alternatives.
package glob

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/tidings-dev/tidings/atproto/identity"
)

// MatchRepository reports whether a valid glob matches the name of a repository.
// "oss/**" matches everything below oss/, but not a repository "oss", also as one
// of several alternatives in braces. A repository of another owner has the name
// DID/REPOSITORY.
func MatchRepository(glob, repository string) bool {
	for _, glob := range alternatives(glob) {
		if below, ok := strings.CutSuffix(glob, "/**"); ok {
			glob = below + "/**/*"
		}
		if ok, err := doublestar.Match(glob, repository); err == nil && ok {
			return true
		}
	}
	return false
}

// MatchTag reports whether a valid glob matches a tag.
func MatchTag(glob, tag string) bool {
	ok, err := doublestar.Match(glob, tag)
	return err == nil && ok
}

// ValidateRepository returns an error if a glob is invalid or cannot match the
// name of any repository.
func ValidateRepository(glob string) error {
	if err := validate(glob); err != nil {
		return err
	}
	if strings.HasPrefix(glob, "did:") {
		owner, below, _ := strings.Cut(glob, "/")
		if below == "" {
			return fmt.Errorf("%q is only an owner; %q matches all repositories of this owner", glob, owner+"/**")
		}
		if err := identity.ValidateDID(owner); err != nil && !strings.ContainsAny(owner, `*?[{\`) {
			return err
		}
		glob = below
	}
	switch {
	case len(alternatives(glob)) > maxAlternatives:
		return fmt.Errorf("%q expands to more than %d globs; split it, or use * instead of braces", glob, maxAlternatives)
	case strings.HasPrefix(glob, "/"):
		return fmt.Errorf("%q begins with a slash, which no repository does", glob)
	case strings.HasSuffix(glob, "/"):
		return fmt.Errorf("%q ends with a slash, which no repository does; %q matches everything below it", glob, glob+"**")
	case strings.Contains(glob, "//"):
		return fmt.Errorf("%q has two slashes in a row, which no repository has", glob)
	case strings.Contains(glob, ":"):
		return fmt.Errorf("%q has a colon; use the name of the repository without host and port, tag or digest", glob)
	case glob != strings.ToLower(glob):
		return fmt.Errorf("%q has capital letters, which no repository has", glob)
	}
	return nil
}

// ValidateTag returns an error if a glob is invalid or cannot match any tag.
func ValidateTag(glob string) error {
	if err := validate(glob); err != nil {
		return err
	}
	if strings.ContainsAny(glob, "/:") {
		return fmt.Errorf("%q is an invalid tag pattern: tags have neither slashes nor colons", glob)
	}
	return nil
}

func validate(glob string) error {
	if glob == "" {
		return errors.New("an empty pattern matches nothing; remove it")
	}
	if !doublestar.ValidatePattern(glob) {
		return fmt.Errorf(`%q is an invalid pattern; each [ and { must be closed, and \ must be followed by a character`, glob)
	}
	return nil
}

// maxAlternatives limits how many globs without braces a glob with braces expands
// to: a name is matched against each of them.
const maxAlternatives = 256

// alternatives returns the globs without braces that a valid glob expands to. It
// stops once there are more than maxAlternatives.
func alternatives(glob string) []string {
	begin, end, commas := braces(glob)
	if begin < 0 {
		return []string{glob}
	}
	var all []string
	from := begin + 1
	for _, to := range append(commas, end) {
		for _, one := range alternatives(glob[:begin] + glob[from:to] + glob[end+1:]) {
			if all = append(all, one); len(all) > maxAlternatives {
				return all
			}
		}
		from = to + 1
	}
	return all
}

// braces returns the positions of the first pair of braces and of the commas
// between its alternatives; begin is -1 if there is no pair.
func braces(glob string) (begin, end int, commas []int) {
	begin = -1
	depth, class := 0, false
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '{':
			if depth++; depth == 1 {
				begin = i
			}
		case c == ',' && depth == 1:
			commas = append(commas, i)
		case c == '}' && depth > 0:
			if depth--; depth == 0 {
				return begin, i, commas
			}
		}
	}
	return -1, 0, nil
}
