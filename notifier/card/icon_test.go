package card

import (
	"bytes"
	"image/png"
	"testing"
)

// An icon is square, small, the same each time, and another one for another host.
func TestIcon(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, host := range []string{"registry.example.com", "registry.example.org", "localhost:5000", ""} {
		icon, err := Icon(host)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Icon(host)
		if err != nil || !bytes.Equal(icon, again) {
			t.Errorf("%q: the second drawing is another one, %v", host, err)
		}
		m, err := png.Decode(bytes.NewReader(icon))
		if err != nil || m.Bounds().Dx() != IconSize || m.Bounds().Dy() != IconSize || len(icon) > 10_000 {
			t.Fatalf("%q: %d bytes, %v, %v", host, len(icon), m, err)
		}
		if m.At(0, 0) != m.At(iconMargin-1, IconSize/2) || m.At(iconMargin+iconCell/2, IconSize/2) != m.At(IconSize-1-iconMargin-iconCell/2, IconSize/2) {
			t.Errorf("%q: the margin has several colors, or the emblem is not symmetric", host)
		}
		if other, ok := seen[string(icon)]; ok {
			t.Errorf("%q and %q have the same icon", host, other)
		}
		seen[string(icon)] = host
	}
}
