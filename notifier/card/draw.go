package card

import (
	"fmt"
	"image"
	"image/color"
	"strconv"
	"sync"
)

// The size of a card in pixels, and its media type.
const (
	Width     = 1200
	Height    = 630
	MediaType = "image/png"
)

// The grid: everything begins and ends at the margins.
const (
	margin = 64
	right  = Width - margin
	bottom = Height - margin
	space  = 32 // between things next to each other
)

// Draw draws a card. A drawing needs 4 MB of memory, most of which the next one uses again.
func Draw(f Facts) ([]byte, error) {
	out, _, err := drawCard(f)
	if err != nil {
		return nil, fmt.Errorf("draw card: %w", err)
	}
	return out, nil
}

// drawCard also returns the texts on the card.
func drawCard(f Facts) ([]byte, []text, error) {
	c := newCanvas()
	defer canvases.Put(c.RGBA)
	c.draw(f)
	if c.err != nil {
		return nil, nil, c.err
	}
	out, err := encode(c.RGBA)
	return out, c.texts, err
}

var canvases = sync.Pool{New: func() any { return image.NewRGBA(image.Rect(0, 0, Width, Height)) }}

func newCanvas() *canvas {
	return &canvas{RGBA: canvases.Get().(*image.RGBA), ruler: new(ruler)}
}

// draw draws the facts, from top to bottom.
func (c *canvas) draw(f Facts) {
	p := paletteOf(f.Repository)
	f = f.clean()
	c.fill(c.Rect, 0, p.paper)
	owner, name, version := f.names()
	c.heading(owner, f.Host, p)
	c.titles(name, version, p)
	c.facts(f, p)
	c.bar(f.LayerSizes, p)
}

// heading draws the owner's part of the repository and the host.
func (c *canvas) heading(owner, host string, p palette) {
	const baseline = 100
	box := image.Rect(margin, 66, right, 114)
	if owner == "" {
		owner, host = host, ""
	}
	if host != "" {
		half := image.Rect(Width/2, box.Min.Y, right, box.Max.Y)
		s := c.fit(host, regular, half.Dx(), step{28, 1})
		c.line(s.lines[0], s.style, p.muted, half, baseline, true)
		box.Max.X = half.Min.X - space
	}
	if owner != "" {
		s := c.fit(owner, medium, box.Dx(), step{36, 1}, step{32, 1}, step{28, 1})
		c.line(s.lines[0], s.style, p.muted, box, baseline, false)
	}
}

// The steps in which a long name and a long version become smaller.
var (
	nameSteps    = []step{{156, 1}, {140, 1}, {124, 1}, {110, 1}, {98, 1}, {86, 2}, {76, 2}, {68, 2}}
	versionSteps = []step{{104, 1}, {92, 1}, {82, 1}, {72, 1}, {64, 1}, {56, 1}, {50, 2}}
)

// titles draws the name and the version, and the emblem if they leave room for it.
func (c *canvas) titles(name, version string, p palette) {
	upper := image.Rect(margin, 122, right, 322)
	lower := image.Rect(margin, 330, right, 446)
	if version == "" {
		upper.Max.Y = lower.Max.Y
	}
	n := c.fit(name, bold, upper.Dx(), nameSteps...)
	v := c.fit(version, medium, lower.Dx(), versionSteps...)
	if max(c.widest(n), c.widest(v)) <= upper.Dx()-emblemSize-2*space {
		c.emblem(image.Pt(right-emblemSize, 164), p)
	}
	c.block(n, p.ink, upper)
	c.block(v, p.accent, lower)
}

// block draws lines in the middle of the height of a box.
func (c *canvas) block(s setting, ink color.Color, box image.Rectangle) {
	leading := s.style.size * 106 / 100
	// The middle of a line is that of a digit.
	y := (box.Min.Y+box.Max.Y-leading*(len(s.lines)-1))/2 + s.style.size*33/100
	for _, line := range s.lines {
		c.line(line, s.style, ink, box, y, false)
		y += leading
	}
}

// facts draws size, number of layers and platforms in one line.
func (c *canvas) facts(f Facts, p palette) {
	const baseline = 502
	box := image.Rect(margin, 462, right, 516)
	add := func(s string, in style) {
		if s != "" {
			c.line(s, in, p.muted, box, baseline, false)
			box.Min.X += c.width(s, in) + space
		}
	}
	add(f.Size, style{bold, 36})
	in := style{regular, 36}
	switch {
	case f.Layers == 1:
		add("1 layer", in)
	case f.Layers > 1:
		add(strconv.Itoa(f.Layers)+" layers", in)
	}
	add(c.list(f.Platforms, in, box.Dx()), in)
}
