package card

import (
	"fmt"
	"image"
)

// An icon is an emblem with a margin.
const (
	IconSize   = 512 // pixels
	iconCell   = 80
	iconGap    = 12
	iconMargin = (IconSize - emblemCells*(iconCell+iconGap) + iconGap) / 2
)

// Icon draws the square icon of a registry, a PNG file of a few kilobytes. It is the same for
// each call with a host.
func Icon(host string) ([]byte, error) {
	c := canvas{RGBA: image.NewRGBA(image.Rect(0, 0, IconSize, IconSize))}
	p := paletteOf(host)
	c.fill(c.Rect, 0, p.paper)
	c.pattern(image.Pt(iconMargin, iconMargin), p, iconCell, iconGap)
	out, err := encode(c.RGBA)
	if err != nil {
		return nil, fmt.Errorf("draw icon: %w", err)
	}
	return out, nil
}
