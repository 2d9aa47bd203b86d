package card

import (
	"sync"
	"unicode/utf8"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

// A weight is a font of the family.
type weight int

const (
	regular weight = iota
	medium
	bold
)

var fonts = sync.OnceValue(func() [3]*sfnt.Font {
	var parsed [3]*sfnt.Font
	for i, file := range [][]byte{goregular.TTF, gomedium.TTF, gobold.TTF} {
		f, err := opentype.Parse(file)
		if err != nil {
			panic(err) // it is compiled in
		}
		parsed[i] = f
	}
	return parsed
})

// has reports whether all fonts have a character.
func has(r rune) bool {
	if r >= ' ' && r <= '~' {
		return true
	}
	var buffer sfnt.Buffer
	for _, f := range fonts() {
		if i, err := f.GlyphIndex(&buffer, r); err != nil || i == 0 {
			return false
		}
	}
	return true
}

// A style is a font at a size.
type style struct {
	weight weight
	size   int // pixels of the em square
}

func (s style) face() (font.Face, error) {
	return opentype.NewFace(fonts()[s.weight], &opentype.FaceOptions{Size: float64(s.size), DPI: 72, Hinting: font.HintingNone})
}

// rulerSize is the size at which widths are measured. Without hinting a width is
// proportional to the size.
const rulerSize = 1000

// A ruler measures text. The fonts have no kerning, so a width is the sum of the advances.
type ruler struct{ buffer sfnt.Buffer }

// width returns the width of s in pixels, rounded up.
func (r *ruler) width(s string, in style) int {
	var advance int64
	ascii := &asciiAdvances()[in.weight]
	for _, c := range s {
		if c < utf8.RuneSelf {
			advance += int64(ascii[c])
		} else {
			advance += int64(r.advance(c, in.weight))
		}
	}
	return fixed.Int26_6(advance*int64(in.size)/rulerSize).Ceil() + 1
}

// advance returns the width of a character at rulerSize.
func (r *ruler) advance(c rune, w weight) fixed.Int26_6 {
	f := fonts()[w]
	i, err := f.GlyphIndex(&r.buffer, c)
	if err != nil {
		return 0
	}
	advance, err := f.GlyphAdvance(&r.buffer, i, fixed.I(rulerSize), font.HintingNone)
	if err != nil {
		return 0 // the font has no such character, which drawable leaves out
	}
	return advance
}

// asciiAdvances are the widths of the characters of almost all names.
var asciiAdvances = sync.OnceValue(func() *[3][utf8.RuneSelf]fixed.Int26_6 {
	var r ruler
	all := new([3][utf8.RuneSelf]fixed.Int26_6)
	for w := range all {
		for c := range all[w] {
			all[w][c] = r.advance(rune(c), weight(w))
		}
	}
	return all
})

// widest returns the width of the longest line.
func (r *ruler) widest(s setting) int {
	width := 0
	for _, line := range s.lines {
		width = max(width, r.width(line, s.style))
	}
	return width
}
