package card

import (
	"bytes"
	"cmp"
	"encoding/binary"
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
	p := &image.Paletted{Pix: make([]uint8, len(m.Pix)/4), Stride: m.Rect.Dx(), Rect: m.Rect, Palette: colors}
	left := p.Pix
	for run := range runs(m) {
		i := index[run.color]
		for k := range run.length {
			left[k] = i
		}
		left = left[run.length:]
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
		for pix := m.Pix; len(pix) > 0; {
			first, n := binary.LittleEndian.Uint32(pix), 4
			for n < len(pix) && binary.LittleEndian.Uint32(pix[n:]) == first {
				n += 4
			}
			if !yield(run{color.RGBA{pix[0], pix[1], pix[2], pix[3]}, n / 4}) {
				return
			}
			pix = pix[n:]
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

// encoder compresses little: a card becomes a tenth larger, and is drawn in two thirds of the time.
var encoder = png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: new(buffers)}

// buffers keeps the buffers of the encoder.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() *png.EncoderBuffer {
	buffer, _ := b.pool.Get().(*png.EncoderBuffer)
	return buffer
}

func (b *buffers) Put(buffer *png.EncoderBuffer) { b.pool.Put(buffer) }
