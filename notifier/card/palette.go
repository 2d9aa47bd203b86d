package card

import (
	"crypto/sha256"
	"encoding/binary"
	"image/color"
	"math"
)

// A palette has the colors of a card, all of one hue, which is that of the repository.
type palette struct {
	paper  color.RGBA // background
	panel  color.RGBA // of empty parts of the emblem
	ink    color.RGBA // the name
	accent color.RGBA // the version
	muted  color.RGBA // everything else
	hue    float64
	seed   [sha256.Size]byte // of the emblem
}

// paletteOf derives the colors from the repository, so that its cards look alike.
func paletteOf(repository string) palette {
	seed := sha256.Sum256([]byte(repository))
	p := paletteAt(float64(binary.BigEndian.Uint16(seed[:])) * 360 / (1 << 16))
	p.seed = seed
	return p
}

// paletteAt has the same lightness for every hue, so that the contrast is the same.
func paletteAt(hue float64) palette {
	return palette{
		paper:  oklch(0.977, 0.010, hue),
		panel:  oklch(0.935, 0.022, hue),
		ink:    oklch(0.27, 0.045, hue),
		accent: oklch(0.47, 0.125, hue),
		muted:  oklch(0.45, 0.035, hue),
		hue:    hue,
	}
}

// shade returns a color of the bar or the emblem, from dark (0) to light (1).
func (p palette) shade(light float64) color.RGBA {
	return oklch(0.52+0.30*light, 0.120-0.050*light, p.hue)
}

// oklch converts a color from the OKLCH space, in which colors of one lightness look
// equally light. Where sRGB does not have it, it is less saturated.
func oklch(lightness, chroma, hue float64) color.RGBA {
	sin, cos := math.Sincos(hue * math.Pi / 180)
	for ; ; chroma -= 0.002 {
		r, g, b := fromOKLab(lightness, chroma*cos, chroma*sin)
		low, high := min(r, g, b), max(r, g, b)
		if low >= 0 && high <= 1 || chroma <= 0 {
			return color.RGBA{level(r), level(g), level(b), 255}
		}
	}
}

// fromOKLab returns linear sRGB. The matrices are those of the definition of OKLab.
func fromOKLab(l, a, b float64) (red, green, blue float64) {
	cube := func(x float64) float64 { return x * x * x }
	long := cube(l + 0.3963377774*a + 0.2158037573*b)
	middle := cube(l - 0.1055613458*a - 0.0638541728*b)
	short := cube(l - 0.0894841775*a - 1.2914855480*b)
	red = 4.0767416621*long - 3.3077115913*middle + 0.2309699292*short
	green = -1.2684380046*long + 2.6097574011*middle - 0.3413193965*short
	blue = -0.0041960863*long - 0.7034186147*middle + 1.7076147010*short
	return red, green, blue
}

// level encodes a linear value from 0 to 1 with the curve of sRGB.
func level(linear float64) uint8 {
	v := 12.92 * linear
	if linear > 0.0031308 {
		v = 1.055*math.Pow(linear, 1/2.4) - 0.055
	}
	return uint8(math.Round(255 * min(max(v, 0), 1)))
}
