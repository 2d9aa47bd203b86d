package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Visible says whether a repository may be seen: whether `public:` has a glob
// for it. Nothing else decides this. "oss/**" is everything below oss/, and not
// a repository that is itself called oss, also as one of several in braces.
func (o *Options) Visible(repository string) bool {
	for _, glob := range o.Public {
		for _, glob := range alternatives(glob) {
			if below, ok := strings.CutSuffix(glob, "/**"); ok {
				glob = below + "/**/*"
			}
			if ok, err := doublestar.Match(glob, repository); err == nil && ok {
				return true
			}
		}
	}
	return false
}

// maxAlternatives is how many globs without braces one with braces may stand
// for: each is matched when somebody asks for a repository.
const maxAlternatives = 256

// alternatives are the globs without braces that a valid glob stands for; no
// more than one above maxAlternatives.
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

// braces finds the first pair of braces, and the commas between its
// alternatives; begin is -1 if there is none.
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

// versionTag is three numbers, with or without a v. Pre-releases and variants
// (-rc.1, -alpine) are not among them: the default is quiet.
var versionTag = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+$`)

// Match says whether a tag is announced.
func (a *Announce) Match(tag string) bool {
	if len(a.Tags) == 0 {
		return versionTag.MatchString(tag)
	}
	for _, glob := range a.Tags {
		if ok, err := doublestar.Match(glob, tag); err == nil && ok {
			return true
		}
	}
	return false
}

func checkGlob(glob string) error {
	if glob == "" {
		return errors.New(`an empty text matches nothing; leave it out`)
	}
	if !doublestar.ValidatePattern(glob) {
		return fmt.Errorf("%q is not a glob; each [ and { needs its partner, and \\ something after it", glob)
	}
	return nil
}

// checkRepositories refuses globs that no repository's name can match, which
// would hide what the operator meant to show.
func checkRepositories(glob string) error {
	if err := checkGlob(glob); err != nil {
		return err
	}
	if strings.HasPrefix(glob, "did:") {
		owner, below, _ := strings.Cut(glob, "/")
		if below == "" {
			return fmt.Errorf("%q is an owner alone; %q is all that other registries tell of this owner", glob, owner+"/**")
		}
		if err := checkDID(owner); err != nil && !strings.ContainsAny(owner, `*?[{\`) {
			return err
		}
		glob = below
	}
	switch {
	case len(alternatives(glob)) > maxAlternatives:
		return fmt.Errorf("%q stands for more than %d globs; write it in several, or with * in place of braces", glob, maxAlternatives)
	case strings.HasPrefix(glob, "/"):
		return fmt.Errorf("%q begins with a slash, which no repository does", glob)
	case strings.HasSuffix(glob, "/"):
		return fmt.Errorf(`%q ends with a slash, which no repository does; %q is everything below it`, glob, glob+"**")
	case strings.Contains(glob, ":"):
		return fmt.Errorf("%q has a colon; name the repository only, without host and port, tag or digest", glob)
	case glob != strings.ToLower(glob):
		return fmt.Errorf("%q has capital letters, which no repository has", glob)
	}
	return nil
}

func checkTags(glob string) error {
	if err := checkGlob(glob); err != nil {
		return err
	}
	if strings.ContainsAny(glob, "/:") {
		return fmt.Errorf("%q is no glob of tags; tags have neither slashes nor colons", glob)
	}
	return nil
}
