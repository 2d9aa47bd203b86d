package card

import "image"

const (
	barTop  = 538
	maxBars = 128 // layers that are drawn; the others share the last part
)

// spacing returns the pixels between the parts of a bar, and those of the smallest part.
func spacing(parts int) (gap, least int) {
	if parts > 64 {
		return 2, 3
	}
	return 4, 6
}

// bar draws the sizes of the layers, in their order. Without them it is a thin line.
func (c *canvas) bar(layers []int64, p palette) {
	box := image.Rect(margin, barTop, right, bottom)
	widths := divide(layers, box.Dx())
	if len(widths) == 0 {
		box.Min.Y = box.Max.Y - 6
		c.fill(box, 3, p.shade(1))
		return
	}
	x := box.Min.X
	gap, _ := spacing(len(widths))
	for i, w := range widths {
		light := 0.0
		if len(widths) > 1 {
			light = float64(i) / float64(len(widths)-1)
		}
		c.fill(image.Rect(x, box.Min.Y, x+w, box.Max.Y), 4, p.shade(light))
		x += w + gap
	}
}

// divide returns the widths of the layers' parts of a bar. They and the gaps between them
// add up to its width.
func divide(layers []int64, width int) []int {
	sizes := make([]float64, 0, maxBars)
	total := 0.0
	for _, n := range layers {
		size := float64(max(n, 0))
		total += size
		if len(sizes) == maxBars {
			sizes[maxBars-1] += size
		} else {
			sizes = append(sizes, size)
		}
	}
	if total == 0 {
		return nil
	}
	gap, least := spacing(len(sizes))
	free := width - gap*(len(sizes)-1) - least*len(sizes)
	widths := make([]int, len(sizes))
	sum, end := 0.0, 0
	for i, size := range sizes {
		sum += size
		next := int(float64(free)*(sum/total) + 0.5)
		widths[i] = least + next - end
		end = next
	}
	return widths
}
