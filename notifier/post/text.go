package post

import (
	"strconv"
	"strings"

	uax29 "github.com/clipperhouse/uax29/v2/graphemes"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// write builds the text:
//
//	oss/app:v1.2.3 was pushed (also 1.2, latest)
//	45.2 MB, 7 layers, linux/amd64, linux/arm64
//
//	docker pull registry.example.com/oss/app:v1.2.3
//
//	@alice.example.com #containers
//
// The second line of the first post of a repository begins with "first version". With
// more versions the first line ends in "(also 1.2, latest) and 3 more versions were
// pushed".
func (f Facts) write(c cut) *builder {
	b := new(builder)
	name := middle(f.Repository, c.name) + ":" + f.Tags[0]
	if f.Link != "" {
		b.link(name, f.Link)
	} else {
		b.plain(name)
	}
	also := ""
	if c.tags > 0 {
		also = " (also " + list(f.Tags[1:], c.tags) + ")"
	}
	if f.MoreVersions > 0 {
		b.plain(also + " and " + count(f.MoreVersions, "more version", "more versions") + " were pushed")
	} else {
		b.plain(" was pushed" + also)
	}

	var about []string
	if f.First {
		about = append(about, "first version")
	}
	if size := f.size(); size != "" {
		about = append(about, size)
	}
	if n := f.layers(); n > 0 {
		about = append(about, count(n, "layer", "layers"))
	}
	if c.platforms > 0 {
		about = append(about, list(f.Platforms, c.platforms))
	}
	if len(about) > 0 {
		b.plain("\n" + strings.Join(about, ", "))
	}

	if c.pull {
		b.plain("\n\ndocker pull " + f.Reference)
	}
	separator := "\n\n"
	if c.mention {
		b.plain(separator)
		b.mention(f.Mention)
		separator = " "
	}
	for _, name := range f.Hashtags[:c.hashtags] {
		b.plain(separator)
		b.hashtag(name)
		separator = " "
	}
	return b
}

// size is the size as posts show it, "" if it is not known.
func (f Facts) size() string {
	switch {
	case f.Size <= 0:
		return ""
	case f.Images > 1 && f.Total > 0:
		return Size(f.Total) + " in " + count(f.Images, "image", "images")
	case f.Images > 1:
		return "up to " + Size(f.Size)
	}
	return Size(f.Size)
}

// layers is the number of layers that posts show, 0 if it is not known. Each of several
// images has layers of its own.
func (f Facts) layers() int {
	if f.Images > 1 {
		return 0
	}
	return max(f.Layers, 0)
}

// count formats a number of things.
func count(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + several
}

// list lists the first n names and the number of the others.
func list(names []string, n int) string {
	s := strings.Join(names[:n], ", ")
	if left := len(names) - n; left > 0 {
		s += " and " + strconv.Itoa(left) + " more"
	}
	return s
}

// Size formats n bytes as Docker's tools do, in powers of 1000.
func Size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	units := []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	v := float64(n) / 1000
	for v >= 999.5 { // would be written as 1000; an int64 ends below 10 EB
		v, units = v/1000, units[1:]
	}
	digits := 1
	if v >= 99.95 {
		digits = 0
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', digits, 64), ".0") + " " + units[0]
}

// middle shortens s to n graphemes by omitting its middle: the end of a name is the
// image, its beginning the owner.
func middle(s string, n int) string {
	total := graphemes(s)
	if total <= n {
		return s
	}
	head := (n - 1) / 2
	tail := total - (n - 1 - head)
	var out strings.Builder
	g := uax29.FromString(s)
	for i := 0; g.Next(); i++ {
		if i == head {
			out.WriteString("…")
		}
		if i < head || i >= tail {
			out.WriteString(g.Value())
		}
	}
	return out.String()
}

func graphemes(s string) int { return lexicon.Graphemes(s) }
