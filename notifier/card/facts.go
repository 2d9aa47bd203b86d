package card

import (
	"path"
	"strings"
	"unicode"

	uax29 "github.com/clipperhouse/uax29/v2/graphemes"
)

// Facts are what a card shows. They are in the outbox with the post, since the picture
// is drawn again after a restart.
type Facts struct {
	Repository string   `json:"repository"`           // "oss/app"
	Version    string   `json:"version"`              // the tag
	Digest     string   `json:"digest"`               // "sha256:…"; shown in place of what cannot be
	Size       string   `json:"size,omitempty"`       // "45.2 MB"; "": unknown
	Layers     int      `json:"layers,omitempty"`     // 0: unknown
	LayerSizes []int64  `json:"layerSizes,omitempty"` // in bytes, in the order of the layers; nil: unknown
	Platforms  []string `json:"platforms,omitempty"`  // "linux/arm/v7"
	Host       string   `json:"host,omitempty"`       // of the registry; "": unknown
}

// clean returns the facts as they can be drawn.
func (f Facts) clean() Facts {
	digest := shortDigest(f.Digest)
	f.Repository, f.Version, f.Host = drawable(f.Repository), drawable(f.Version), drawable(f.Host)
	f.Size = drawable(f.Size)
	if !legible(f.Repository) {
		f.Repository = digest
	}
	if !legible(f.Version) {
		f.Version = digest
	}
	if !legible(f.Host) {
		f.Host = ""
	}
	platforms := make([]string, 0, len(f.Platforms))
	for _, p := range f.Platforms {
		if p = drawable(p); legible(p) {
			platforms = append(platforms, p)
		}
	}
	f.Platforms = platforms
	return f
}

// names returns the owner's part of the repository, the rest, and the version. The digest
// stands for a rest of which nothing can be read; it is not shown twice.
func (f Facts) names() (owner, name, version string) {
	owner, name = path.Split(f.Repository)
	if owner = strings.TrimSuffix(owner, "/"); !legible(owner) {
		owner = ""
	}
	digest := shortDigest(f.Digest)
	if !legible(name) {
		name = digest
	}
	if name == digest && f.Version == digest {
		return owner, name, ""
	}
	return owner, name, f.Version
}

// shortDigest is the beginning of a digest, "sha256:9f86d081884c".
func shortDigest(digest string) string {
	algorithm, hex, ok := strings.Cut(drawable(digest), ":")
	if !ok || !legible(hex) {
		return "image"
	}
	return shorten(algorithm, 12) + ":" + hex[:min(len(hex), 12)]
}

// drawable returns s with "·" for each run of graphemes that the fonts lack. Control and
// format characters are left out.
func drawable(s string) string {
	var out strings.Builder
	missing := false
	g := uax29.FromString(strings.ToValidUTF8(s, "\uFFFD"))
	for n := 0; g.Next() && n < maxGraphemes; n++ {
		text := drawableGrapheme(g.Value())
		if text == "" || text == " " && strings.HasSuffix(out.String(), " ") {
			continue
		}
		if text != gap || !missing {
			out.WriteString(text)
		}
		missing = text == gap
	}
	return strings.TrimSpace(out.String())
}

// gap is shown for graphemes that the fonts lack.
const gap = "·"

// maxGraphemes is more than a card can show of a name.
const maxGraphemes = 1000

// drawableGrapheme returns a grapheme without what is invisible, "" if nothing is left,
// and gap if the fonts lack its first character. Marks that they lack are left out.
func drawableGrapheme(s string) string {
	var out strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Variation_Selector, r):
			continue
		}
		if r != unicode.ReplacementChar && has(r) {
			out.WriteRune(r)
		} else if out.Len() == 0 {
			return gap
		}
	}
	return out.String()
}

// legible reports whether s has a letter or a digit.
func legible(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) >= 0
}

// shorten shortens s to n characters by omitting its middle.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	head := n / 2
	return string(r[:head]) + "…" + string(r[len(r)-(n-1-head):])
}
