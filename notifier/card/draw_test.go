package card

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/race"
)

const digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func sizes(n int, size func(i int) int64) []int64 {
	layers := make([]int64, n)
	for i := range layers {
		layers[i] = size(i)
	}
	return layers
}

var cases = []struct {
	name  string
	facts Facts
}{
	{"plain", Facts{
		Repository: "oss/app", Version: "v1.2.3", Digest: digest, Size: "45.2 MB", Layers: 5, LayerSizes: []int64{29e6, 12e6, 3e6, 9e5, 32},
		Platforms: []string{"linux/amd64", "linux/arm64"}, Host: "registry.example.com",
	}},
	{"no owner", Facts{
		Repository: "nginx", Version: "1.27.3", Digest: digest, Size: "72 MB", Layers: 7, LayerSizes: []int64{29e6, 42e6, 1, 1, 1, 1, 1},
		Platforms: []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "linux/riscv64"}, Host: "localhost:5000",
	}},
	{"two lines", Facts{
		Repository: "platform/infrastructure/kubernetes-ingress-controller", Version: "v0.14.0-rc.1", Digest: digest, Size: "1.2 GB",
		Layers: 4, LayerSizes: []int64{290e6, 120e6, 30e6, 900e6}, Platforms: []string{"linux/amd64"}, Host: "images.example.org",
	}},
	{"shortened", Facts{
		Repository: "team/a-very-long-name-that-goes-on-and-on-for-the-sake-of-testing-how-it-is-shortened-in-the-middle",
		Version:    "v2026.11.27-build.20261127T070057Z.g3f5ab12c9d-nightly-experimental-with-all-the-features-enabled",
		Digest:     digest, Size: "999 kB", Layers: 1, LayerSizes: []int64{999e3}, Platforms: []string{"linux/amd64"}, Host: "registry.example.com",
	}},
	{"longest names", Facts{
		Repository: strings.Repeat("team/", 25) + strings.Repeat("a", 130), Version: strings.Repeat("W", 128), Digest: digest,
		Size: "9.2 EB", Layers: 127, LayerSizes: sizes(127, func(int) int64 { return 1 << 50 }),
		Platforms: slices.Repeat([]string{"dragonfly/mips64le/v99.9"}, 32), Host: strings.Repeat("registry.", 27) + "example.com",
	}},
	{"Cyrillic", Facts{Repository: "équipe/приложение", Version: "v1", Digest: digest, Size: "3.4 MB", Layers: 1, LayerSizes: []int64{34e5}, Host: "пример.example"}},
	{"Japanese", Facts{Repository: "日本語/アプリ", Version: "v1", Digest: digest, Size: "3.4 MB", Host: "例え.example"}},
	{"partly Japanese", Facts{Repository: "ツール/日本語-tools", Version: "版2", Digest: digest, Layers: 3, LayerSizes: []int64{1, 2, 3}}},
	{"Japanese name", Facts{Repository: "équipe/アプリ", Version: "v1", Digest: digest}},
	{"all Japanese", Facts{Repository: "équipe/アプリ", Version: "版", Digest: digest}},
	{"only names", Facts{Repository: "x", Version: "1"}},
	{"nothing", Facts{}},
	{"many layers", Facts{
		Repository: "data/warehouse", Version: "2031.4", Digest: digest, Size: "15 GB", Layers: 100, LayerSizes: sizes(100, func(i int) int64 { return int64(1+i%9) << 20 }),
		Platforms: []string{"linux/amd64", "windows/amd64"}, Host: "registry.example.com",
	}},
	{"hostile", Facts{
		Repository: "oss/free\ncoins\u202e\x00 👩‍🚀👩‍🚀 here", Version: "v1\u0301\u0489\ufe0f", Digest: "sha256:\u202e", Size: "1\n2 MB",
		Layers: 3, LayerSizes: []int64{-1, 1 << 62, 1 << 62}, Platforms: []string{"\n", "👩‍🚀", "linux/\xff"}, Host: "\u200b",
	}},
	{"accents", Facts{Repository: "cafe\u0301/ångström", Version: "v2.0.0-β", Digest: digest, Size: "8.1 MB", Layers: 2, LayerSizes: []int64{5e6, 3e6}, Host: "registry.example.com"}},
}

// decode decodes a card and checks its format.
func decode(t testing.TB, card []byte) image.Image {
	t.Helper()
	m, err := png.Decode(bytes.NewReader(card))
	if err != nil {
		t.Fatal(err)
	}
	if m.Bounds() != image.Rect(0, 0, 1200, 630) {
		t.Errorf("got %s, want 1200×630", m.Bounds())
	}
	return m
}

// The same facts give the same bytes.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	for _, tc := range cases[:3] {
		card, err := Draw(tc.facts)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Draw(tc.facts); err != nil || !bytes.Equal(card, again) {
			t.Errorf("%s: got other bytes, %v", tc.name, err)
		}
	}
}

// layout draws a card without encoding it, and returns its texts.
func layout(t testing.TB, f Facts) []text {
	t.Helper()
	c := newCanvas()
	defer canvases.Put(c.RGBA)
	if c.draw(f); c.err != nil {
		t.Fatal(c.err)
	}
	return c.texts
}

// checkTexts checks that each text is inside of its box, and no two overlap.
func checkTexts(t testing.TB, f Facts, texts []text) {
	t.Helper()
	for i, a := range texts {
		if !a.ink.In(a.box) || !a.box.In(image.Rect(margin, 0, right, barTop)) {
			t.Errorf("%q covers %s, in the box %s: %+v", a.s, a.ink, a.box, f)
		}
		for _, b := range texts[i+1:] {
			if a.ink.Overlaps(b.ink) {
				t.Errorf("%q at %s and %q at %s overlap: %+v", a.s, a.ink, b.s, b.ink, f)
			}
		}
	}
}

// randomFacts are facts of all lengths, and some in other scripts.
func randomFacts(r *rand.Rand) Facts {
	const ascii, other = "abcdefghijklmnopqrstuvwxyz0123456789MW", "äßжΩéœЩ日語한👩\u0301\u202e\t ·"
	word := func(most int) string {
		var b strings.Builder
		for range 1 + r.IntN(most) {
			if r.IntN(40) == 0 {
				runes := []rune(other)
				b.WriteRune(runes[r.IntN(len(runes))])
				continue
			}
			b.WriteByte(ascii[r.IntN(len(ascii))])
			if r.IntN(8) == 0 {
				b.WriteByte("-._"[r.IntN(3)])
			}
		}
		return b.String()
	}
	f := Facts{Version: word(1 + r.IntN(128)), Digest: digest, Size: word(8) + " MB", Host: word(1 + r.IntN(60))}
	for range 1 + r.IntN(4) {
		f.Repository += word(1+r.IntN(90)) + "/"
	}
	f.Repository = strings.TrimSuffix(f.Repository, "/")
	for range r.IntN(12) {
		f.Platforms = append(f.Platforms, word(24))
	}
	f.Layers = r.IntN(130)
	f.LayerSizes = sizes(f.Layers, func(int) int64 { return r.Int64N(1 << r.IntN(60)) })
	return f
}

// Cards of 1,000 images have no text outside of its box. Some of them are encoded, which
// takes most of the time.
func TestRandomFacts(t *testing.T) {
	t.Parallel()
	const all, encoded = 1000, 100
	n := all
	if race.Enabled {
		n = 40
	}
	r := rand.New(rand.NewPCG(1, 2))
	largest, times := 0, []time.Duration{}
	for i := range n {
		f := randomFacts(r)
		if i%(all/encoded) > 0 {
			checkTexts(t, f, layout(t, f))
			continue
		}
		start := time.Now()
		card, texts, err := drawCard(f)
		times = append(times, time.Since(start))
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		checkTexts(t, f, texts)
		largest = max(largest, len(card))
	}
	slices.Sort(times)
	median := times[len(times)/2]
	t.Logf("at most %d bytes; half of %d cards took less than %s", largest, len(times), median)
	if largest > 300_000 {
		t.Errorf("got a card of %d bytes, want at most 300,000", largest)
	}
	if median > 200*time.Millisecond && !race.Enabled { // there is other load; BenchmarkDraw measures
		t.Errorf("half of the cards took more than %s, want less than 200 ms", median)
	}
	for _, tc := range cases {
		checkTexts(t, tc.facts, layout(t, tc.facts))
	}
}

// What is drawn of the facts.
func TestTexts(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"plain":           {"registry.example.com", "oss", "app", "v1.2.3", "45.2 MB", "5 layers", "linux/amd64   linux/arm64"},
		"no owner":        {"localhost:5000", "nginx", "1.27.3", "72 MB", "7 layers", "linux/amd64   linux/arm64   linux/arm/v7   +2"},
		"two lines":       {"images.example.org", "platform/infrastructure", "kubernetes-", "ingress-controller", "v0.14.0-rc.1", "1.2 GB", "4 layers", "linux/amd64"},
		"Cyrillic":        {"пример.example", "équipe", "приложение", "v1", "3.4 MB", "1 layer"},
		"Japanese":        {"·.example", "sha256:9f86d081884c", "v1", "3.4 MB"},
		"partly Japanese": {"·-tools", "·2", "3 layers"},
		"Japanese name":   {"équipe", "sha256:9f86d081884c", "v1"},
		"all Japanese":    {"équipe", "sha256:9f86d081884c"},
		"only names":      {"x", "1"},
		"nothing":         {"image"},
		"hostile":         {"oss", "free coins · here", "v1", "1 2 MB", "3 layers", "linux/·"},
		"accents":         {"registry.example.com", "cafe", "ångström", "v2.0.0-β", "8.1 MB", "2 layers"},
	} {
		for _, tc := range cases {
			if tc.name != name {
				continue
			}
			var got []string
			for _, drawn := range layout(t, tc.facts) {
				got = append(got, drawn.s)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
			}
		}
	}
}

// Name and version are large enough to be read at 300 pixels, where a line of 12 pixels
// is small print.
func TestThumbnail(t *testing.T) {
	t.Parallel()
	r := new(ruler)
	for _, steps := range [][]step{nameSteps, versionSteps} {
		for _, st := range steps {
			if st.size*300/Width < 12 {
				t.Errorf("%d pixels are %d in a thumbnail, want 12", st.size, st.size*300/Width)
			}
		}
	}
	for name, size := range map[string]int{"app": 156, "prometheus": 124, "ingress-controller": 98} {
		if got := r.fit(name, bold, right-margin, nameSteps...); got.style.size < size || len(got.lines) != 1 {
			t.Errorf("%s: got %d pixels in %d lines, want one of %d", name, got.style.size, len(got.lines), size)
		}
	}
}

// Every color of text has the contrast of WCAG AA, 4.5, at every hue.
func TestContrast(t *testing.T) {
	t.Parallel()
	for hue := range 360 {
		p := paletteAt(float64(hue))
		for name, ink := range map[string][3]uint8{
			"ink": {p.ink.R, p.ink.G, p.ink.B}, "accent": {p.accent.R, p.accent.G, p.accent.B}, "muted": {p.muted.R, p.muted.G, p.muted.B},
		} {
			paper := luminance([3]uint8{p.paper.R, p.paper.G, p.paper.B})
			if got := (paper + 0.05) / (luminance(ink) + 0.05); got < 4.5 {
				t.Errorf("%s at hue %d: contrast %.2f, want 4.5", name, hue, got)
			}
		}
	}
}

// luminance is the relative luminance that WCAG defines.
func luminance(c [3]uint8) float64 {
	linear := func(v uint8) float64 {
		if x := float64(v) / 255; x > 0.04045 {
			return math.Pow((x+0.055)/1.055, 2.4)
		}
		return float64(v) / 255 / 12.92
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

func TestDivide(t *testing.T) {
	t.Parallel()
	for _, layers := range [][]int64{{1}, {1, 1}, {1 << 62, 1 << 62, 0}, sizes(200, func(i int) int64 { return int64(i) }), {-5, 3}} {
		widths := divide(layers, 1000)
		gap, least := spacing(len(widths))
		total := gap * (len(widths) - 1)
		for _, w := range widths {
			if w < least {
				t.Errorf("%v: got a part of %d pixels", layers, w)
			}
			total += w
		}
		if total != 1000 || len(widths) != min(len(layers), maxBars) {
			t.Errorf("%v: got %d parts of %d pixels, want %d of 1000", layers, len(widths), total, min(len(layers), maxBars))
		}
	}
	for _, layers := range [][]int64{nil, {}, {0, 0}, {-1}} {
		if got := divide(layers, 1000); got != nil {
			t.Errorf("%v: got %v, want nothing", layers, got)
		}
	}
}

// Cards of one repository look alike, and those of others do not.
func TestPalette(t *testing.T) {
	t.Parallel()
	hues := map[string]bool{}
	for i := range 50 {
		name := fmt.Sprint("oss/app", i)
		if paletteOf(name) != paletteOf(name) {
			t.Errorf("%s has two palettes", name)
		}
		hues[fmt.Sprint(paletteOf(name).accent)] = true
	}
	if len(hues) < 40 {
		t.Errorf("50 repositories have %d accent colors", len(hues))
	}
}
