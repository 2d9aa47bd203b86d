package post

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Facts are the contents of a post about a push. All except Annotations come from the
// registry; the client that pushes can choose annotations freely, so only a template uses
// them.
type Facts struct {
	Repository string   // "oss/app"
	Tags       []string // the first is announced, the others are listed after it; at least one
	Digest     string   // "sha256:…", of the manifest or index; also in Reference if that is by digest
	Images     int      // of an index; 0 or 1: there is one image
	Size       int64    // bytes to pull, of the largest image; 0: unknown, omitted
	Total      int64    // bytes of all images of an index; 0: unknown, Size is shown
	Layers     int      // of one image; 0: unknown, omitted
	LayerSizes []int64  // of one image, in bytes, in the order of the layers; nil: unknown; only a card shows them
	Platforms  []string // "linux/amd64", "linux/arm/v7"; unknown ones are omitted
	Reference  string   // argument of "docker pull"; empty: no such line
	Link       string   // address behind the name, valid according to CheckLink; empty: none

	First        bool // no version of the repository was announced before
	MoreVersions int  // versions pushed since the last post that this post stands for as well

	Mention     Mention           // account that is mentioned; invalid ones are omitted
	Hashtags    []string          // without "#"; invalid ones are omitted
	Annotations map[string]string // of the image, by key
}

// clean returns the facts without line breaks, control characters, bidirectional
// controls, duplicates and unknown platforms.
func (f Facts) clean() Facts {
	f.Repository = line(f.Repository)
	f.Reference = line(f.Reference)

	var tags []string
	for _, tag := range f.Tags {
		if tag = line(tag); tag != "" && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
		if len(tags) == maxGraphemes { // more cannot be shown
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

	f.Digest = line(f.Digest)
	if CheckMention(f.Mention) != nil {
		f.Mention = Mention{}
	}
	f.Hashtags = validHashtags(f.Hashtags)
	f.Annotations = CleanAnnotations(f.Annotations)
	return f
}

// line makes s safe for use in one line of text: valid UTF-8 without control
// characters, bidirectional controls, and noncharacters, which mark facets in the output
// of a template.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), r == '\u2028', r == '\u2029':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), unicode.Is(unicode.Noncharacter_Code_Point, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(s)
}

// The valid parts of a platform: the names that Go uses, as the OCI image
// specification requires, and wasi, which Docker uses for WebAssembly. Other
// values are text that the client chose, and must not appear in a post.
var (
	systems = []string{
		"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9",
		"solaris", "wasi", "wasip1", "windows",
	}
	architectures = []string{
		"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
		"s390x", "sparc64", "wasm",
	}
	validVariant = regexp.MustCompile(`^v[0-9]{1,2}(\.[0-9])?$`)
)

// Platform formats a platform, such as "linux/arm/v7"; the result is empty if the
// platform is unknown. An unknown variant is omitted.
func Platform(system, architecture, variant string) string {
	if !slices.Contains(systems, system) || !slices.Contains(architectures, architecture) {
		return ""
	}
	name := system + "/" + architecture
	if len(variant) < 8 && validVariant.MatchString(variant) {
		name += "/" + variant
	}
	return name
}

// ParsePlatform parses and formats a platform such as "linux/arm/v7", like Platform.
func ParsePlatform(name string) string {
	system, rest, _ := strings.Cut(name, "/")
	architecture, variant, _ := strings.Cut(rest, "/")
	return Platform(system, architecture, variant)
}
