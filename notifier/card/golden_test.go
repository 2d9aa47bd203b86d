package card_test

import (
	"bytes"
	"flag"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/card"
	"github.com/tidings-dev/tidings/notifier/post/posttest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden compares the cards of the facts whose posts package post compares. Facts that
// only a post shows, such as annotations, leave the card that of a typical image.
func TestGolden(t *testing.T) {
	t.Parallel()
	const host = "registry.example.com"
	all := posttest.Awkward()
	typical, _ := all["long annotation"].Card(host)
	cards := map[string]card.Facts{"typical": typical}
	for name, facts := range all {
		if drawn, _ := facts.Card(host); !reflect.DeepEqual(drawn, typical) {
			cards[name] = drawn
		}
	}
	if len(cards) < 40 {
		t.Errorf("got %d different cards, want at least 40", len(cards))
	}
	for name, facts := range cards {
		if race.Enabled && len(name)%8 > 0 {
			continue // one drawing is like another, and takes ten times as long
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			card.CheckTexts(t, facts)
			content, err := card.Draw(facts)
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, name, card.Decode(t, content).(*image.Paletted))
		})
	}
}

// checkGolden compares a card with its golden file, which has half of its size.
func checkGolden(t *testing.T, name string, drawn *image.Paletted) {
	t.Helper()
	file := filepath.Join("testdata", "golden", strings.ReplaceAll(name, " ", "-")+".png")
	got := half(inColor(drawn))
	if *update {
		if err := writeGolden(file, got, drawn.Palette); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./notifier/card -update writes the golden files", err)
	}
	want, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if n := different(got, want); n > mayDiffer {
		t.Errorf("%d pixels differ from %s, at most %d may", n, file, mayDiffer)
	}
}

// half returns a card at half size: of each four pixels the mean.
func half(m *image.RGBA) *image.RGBA {
	small := image.NewRGBA(image.Rect(0, 0, card.Width/2, card.Height/2))
	for i := range small.Pix {
		x, y, part := i/4%small.Rect.Dx(), i/4/small.Rect.Dx(), i%4
		upper := m.Pix[m.PixOffset(2*x, 2*y)+part:]
		lower := m.Pix[m.PixOffset(2*x, 2*y+1)+part:]
		small.Pix[i] = uint8((int(upper[0]) + int(upper[4]) + int(lower[0]) + int(lower[4]) + 2) / 4)
	}
	return small
}

// inColor returns a card with a color for each pixel.
func inColor(p *image.Paletted) *image.RGBA {
	m := image.NewRGBA(p.Rect)
	draw.Draw(m, m.Rect, p, image.Point{}, draw.Src)
	return m
}

// writeGolden writes a picture with the colors of its card.
func writeGolden(file string, m *image.RGBA, colors color.Palette) error {
	p := image.NewPaletted(m.Rect, colors)
	draw.Draw(p, p.Rect, m, image.Point{}, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, p); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

const (
	shades    = 24  // by which a component may differ: of 256, for other rasterizers and the colors that golden files lack
	mayDiffer = 100 // pixels of 189,000 that may differ by more
)

// different counts pixels that differ visibly.
func different(got *image.RGBA, want image.Image) int {
	if got.Rect != want.Bounds() {
		return len(got.Pix)
	}
	far := func(a uint8, b uint32) bool { return max(int(a), int(b>>8))-min(int(a), int(b>>8)) > shades }
	n := 0
	for y := range got.Rect.Max.Y {
		for x := range got.Rect.Max.X {
			a := got.RGBAAt(x, y)
			r, g, b, _ := want.At(x, y).RGBA()
			if far(a.R, r) || far(a.G, g) || far(a.B, b) {
				n++
			}
		}
	}
	return n
}

// Golden files accept another shade, and notice the smallest text if it moves.
func TestGoldenNoticesMoves(t *testing.T) {
	t.Parallel()
	facts, _ := posttest.Awkward()["only a name"].Card("")
	facts.Size = "45.2 MB"
	content, err := card.Draw(facts)
	if err != nil {
		t.Fatal(err)
	}
	drawn := inColor(card.Decode(t, content).(*image.Paletted))
	want := half(drawn)
	for _, tc := range []struct {
		name   string
		shade  int
		move   int // pixels to the right, of what is below y
		equals bool
	}{{"the same", 0, 0, true}, {"other shades", 12, 0, true}, {"moved", 0, 2, false}} {
		other := image.NewRGBA(drawn.Bounds())
		draw.Draw(other, other.Rect, drawn, image.Point{}, draw.Src)
		const y = 450 // below it is the line with the size
		draw.Draw(other, image.Rect(tc.move, y, card.Width, card.Height), drawn, image.Pt(0, y), draw.Src)
		for i := range other.Pix {
			if i%4 != 3 {
				other.Pix[i] = uint8(max(int(other.Pix[i])-tc.shade, 0))
			}
		}
		if n := different(half(other), want); (n <= mayDiffer) != tc.equals {
			t.Errorf("%s: %d pixels differ", tc.name, n)
		}
	}
}
