package card

import (
	"sync"

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

// A ruler measures text.
type ruler struct{ faces [3]font.Face }

func newRuler() (*ruler, error) {
	r := new(ruler)
	for w := range r.faces {
		face, err := style{weight(w), rulerSize}.face()
		if err != nil {
			return nil, err
		}
		r.faces[w] = face
	}
	return r, nil
}

// width returns the width of s in pixels, rounded up.
func (r *ruler) width(s string, in style) int {
	advance := int64(font.MeasureString(r.faces[in.weight], s))
	return fixed.Int26_6(advance*int64(in.size)/rulerSize).Ceil() + 1
}

// widest returns the width of the longest line.
func (r *ruler) widest(s setting) int {
	width := 0
	for _, line := range s.lines {
		width = max(width, r.width(line, s.style))
	}
	return width
}
