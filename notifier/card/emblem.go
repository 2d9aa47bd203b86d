package card

import (
	"image"
	"image/color"
)

const (
	emblemCells = 5
	emblemCell  = 40 // pixels
	emblemGap   = 6
	emblemSize  = emblemCells*(emblemCell+emblemGap) - emblemGap
)

// emblem draws a symmetric pattern that is the same for all cards of a repository.
func (c *canvas) emblem(at image.Point, p palette) { c.pattern(at, p, emblemCell, emblemGap) }

// pattern draws an emblem with cells of another size.
func (c *canvas) pattern(at image.Point, p palette, cell, gap int) {
	for y := range emblemCells {
		for x := range emblemCells {
			min := at.Add(image.Pt(x*(cell+gap), y*(cell+gap)))
			c.fill(image.Rectangle{min, min.Add(image.Pt(cell, cell))}, cell*3/20, p.cell(x, y))
		}
	}
}

// cell returns the color of a cell of the emblem. Its left half is mirrored.
func (p palette) cell(x, y int) color.RGBA {
	n := p.seed[2+y*3+min(x, emblemCells-1-x)]
	switch {
	case n < 110:
		return p.panel
	case n < 190:
		return p.shade(1.15)
	}
	return p.shade(0.75)
}
