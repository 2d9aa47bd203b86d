package card

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"iter"
	"maps"
	"slices"
	"sync"
)

// maxColors is how many colors an indexed PNG file can have. A card with as many is a
// third of one with all colors, and encoded in a quarter of the time.
const maxColors = 256

// encode returns the picture as an indexed PNG file. Similar colors at the edges of
// glyphs become one; those of areas stay, since they are the most frequent.
func encode(m *image.RGBA) ([]byte, error) {
	counts := map[color.RGBA]int{}
	for run := range runs(m) {
		counts[run.color] += run.length
	}
	index, colors := indexed(counts)
	p := &image.Paletted{Pix: make([]uint8, 0, len(m.Pix)/4), Stride: m.Rect.Dx(), Rect: m.Rect, Palette: colors}
	for run := range runs(m) {
		i := index[run.color]
		for range run.length {
			p.Pix = append(p.Pix, i)
		}
	}
	var out bytes.Buffer
	err := encoder.Encode(&out, p)
	return out.Bytes(), err
}

// A run is a number of pixels of the same color.
type run struct {
	color  color.RGBA
	length int
}

// runs yields the pixels of a picture, row by row.
func runs(m *image.RGBA) iter.Seq[run] {
	return func(yield func(run) bool) {
		pix, n := m.Pix, len(m.Pix)/4
		at := func(i int) color.RGBA { return color.RGBA{pix[4*i], pix[4*i+1], pix[4*i+2], pix[4*i+3]} }
		for i := 0; i < n; {
			r := run{color: at(i)}
			for ; i < n && at(i) == r.color; i++ {
				r.length++
			}
			if !yield(r) {
				return
			}
		}
	}
}

// indexed returns at most maxColors colors, and the index of the one that stands for each
// color: of those that agree in their upper bits, the most frequent one.
func indexed(counts map[color.RGBA]int) (index map[color.RGBA]uint8, colors color.Palette) {
	for dropped := 0; ; dropped++ {
		best := map[color.RGBA]color.RGBA{} // by upper bits
		for c, n := range counts {
			key := upper(c, dropped)
			old, ok := best[key]
			if !ok || n > counts[old] || n == counts[old] && compare(c, old) < 0 {
				best[key] = c
			}
		}
		if len(best) <= maxColors {
			return number(counts, best, dropped)
		}
	}
}

// number numbers the colors in an order that does not depend on that of the maps.
func number(counts map[color.RGBA]int, best map[color.RGBA]color.RGBA, dropped int) (map[color.RGBA]uint8, color.Palette) {
	sorted := slices.SortedFunc(maps.Values(best), compare)
	position := map[color.RGBA]uint8{}
	colors := make(color.Palette, len(sorted))
	for i, c := range sorted {
		position[c], colors[i] = uint8(i), c
	}
	index := make(map[color.RGBA]uint8, len(counts))
	for c := range counts {
		index[c] = position[best[upper(c, dropped)]]
	}
	return index, colors
}

// upper clears the lowest bits of each component.
func upper(c color.RGBA, dropped int) color.RGBA {
	mask := uint8(0xff) << dropped
	return color.RGBA{c.R & mask, c.G & mask, c.B & mask, c.A}
}

func compare(a, b color.RGBA) int {
	return cmp.Or(cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B), cmp.Compare(a.A, b.A))
}

var encoder = png.Encoder{BufferPool: new(buffers)}

// buffers keeps the buffers of the encoder.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() *png.EncoderBuffer {
	buffer, _ := b.pool.Get().(*png.EncoderBuffer)
	return buffer
}

func (b *buffers) Put(buffer *png.EncoderBuffer) { b.pool.Put(buffer) }
