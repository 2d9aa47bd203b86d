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
func (c *canvas) emblem(at image.Point, p palette) {
	for y := range emblemCells {
		for x := range emblemCells {
			min := at.Add(image.Pt(x*(emblemCell+emblemGap), y*(emblemCell+emblemGap)))
			c.fill(image.Rectangle{min, min.Add(image.Pt(emblemCell, emblemCell))}, 6, p.cell(x, y))
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
