package post

import (
	"slices"
	"strings"
	"unicode"
)

// Facts are the contents of a post about a push. All of them come from the
// registry, none from annotations, which the client that pushes can choose.
type Facts struct {
	Repository string   // "oss/app"
	Tags       []string // the first is the one announced, the others came with it; at least one
	Digest     string   // "sha256:…", of the manifest or index; part of Reference when that goes by digest
	Images     int      // of an index; 0 or 1: there is one image
	Size       int64    // bytes to pull of the largest image; 0: not known, left out
	Layers     int      // of one image; 0: not known, left out
	Platforms  []string // "linux/amd64", "linux/arm/v7"; what Platform does not know is left out
	Reference  string   // what follows "docker pull"; empty: no such line
	Link       string   // address behind the name, which CheckLink takes; empty: none
}

// clean returns the facts without line breaks, control characters, changes of
// the reading direction, duplicates and unknown platforms.
func (f Facts) clean() Facts {
	f.Repository = line(f.Repository)
	f.Reference = line(f.Reference)

	var tags []string
	for _, tag := range f.Tags {
		if tag = line(tag); tag != "" && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
		if len(tags) == maxGraphemes { // more than could ever be shown
			break
		}
	}
	f.Tags = tags

	var platforms []string
	for _, p := range f.Platforms {
		if p = ParsePlatform(p); p != "" && !slices.Contains(platforms, p) {
			platforms = append(platforms, p)
		}
	}
	f.Platforms = platforms
	return f
}

// line makes s safe for use in one line of text: valid UTF-8, no control
// characters, nothing that changes the reading direction of what follows.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), r == '\u2028', r == '\u2029':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(s)
}
