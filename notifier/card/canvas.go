package card

import (
	"image"
	"image/color"
	"image/draw"

	"golang.org/x/image/font"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// A canvas is a picture that is being drawn.
type canvas struct {
	*image.RGBA
	*ruler
	texts []text
	err   error // the first
}

// A text is one line of text on a canvas.
type text struct {
	s   string
	ink image.Rectangle // that its glyphs cover
	box image.Rectangle // that it was given
}

// line draws one line of text whose baseline is at y. Its first glyph begins at the left
// of a box or, with right, its last one ends at its right.
func (c *canvas) line(s string, in style, ink color.Color, box image.Rectangle, y int, right bool) {
	face, err := in.face()
	if err != nil || s == "" {
		c.fail(err)
		return
	}
	defer face.Close()
	d := font.Drawer{Dst: c.RGBA, Src: image.NewUniform(ink), Face: face, Dot: fixed.P(box.Min.X, y)}
	bounds, _ := d.BoundString(s)
	move := fixed.I(box.Min.X) - bounds.Min.X
	if right {
		move = fixed.I(box.Max.X) - bounds.Max.X
	}
	d.Dot.X += move
	d.DrawString(s)
	c.texts = append(c.texts, text{s, image.Rect(
		(bounds.Min.X + move).Floor(), bounds.Min.Y.Floor(), (bounds.Max.X + move).Ceil(), bounds.Max.Y.Ceil()), box})
}

func (c *canvas) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// fill fills a rectangle with round corners. A radius of 0 gives sharp ones, without
// anti-aliasing.
func (c *canvas) fill(box image.Rectangle, radius int, ink color.Color) {
	if box.Empty() {
		return
	}
	radius = min(radius, box.Dx()/2, box.Dy()/2)
	if radius == 0 {
		draw.Draw(c.RGBA, box, image.NewUniform(ink), image.Point{}, draw.Src)
		return
	}
	w, h, r := float32(box.Dx()), float32(box.Dy()), float32(radius)
	const bend = 0.4477 // of the radius, from the corner to the control point of an arc
	z := vector.NewRasterizer(box.Dx(), box.Dy())
	z.MoveTo(r, 0)
	z.LineTo(w-r, 0)
	z.CubeTo(w-r*bend, 0, w, r*bend, w, r)
	z.LineTo(w, h-r)
	z.CubeTo(w, h-r*bend, w-r*bend, h, w-r, h)
	z.LineTo(r, h)
	z.CubeTo(r*bend, h, 0, h-r*bend, 0, h-r)
	z.LineTo(0, r)
	z.CubeTo(0, r*bend, r*bend, 0, r, 0)
	z.ClosePath()
	z.Draw(c.RGBA, box, image.NewUniform(ink), image.Point{})
}
