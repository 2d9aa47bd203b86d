package describe

import "github.com/tidings-dev/tidings/atproto/lexicon"

// maxLayerSizes is how many sizes are kept; those of further layers are added to the last.
const maxLayerSizes = 64

// layerSizes returns the sizes of an image's layers in their order, 0 for one that is not
// known or stored elsewhere.
func layerSizes(image *lexicon.ManifestInfo, sizeOf func(lexicon.Descriptor) int64) []int64 {
	var sizes []int64
	for _, l := range image.Layers {
		size := max(sizeOf(l), 0)
		if len(l.URLs) > 0 {
			size = 0
		}
		if len(sizes) < maxLayerSizes {
			sizes = append(sizes, size)
		} else if total := sizes[maxLayerSizes-1] + size; total >= size { // does not overflow
			sizes[maxLayerSizes-1] = total
		}
	}
	return sizes
}
