package card

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkDraw draws a card, and cards of images as different as those of TestRandomFacts.
func BenchmarkDraw(b *testing.B) {
	f := Facts{
		Repository: "oss/team/ingress-controller", Version: "v1.2.3-rc.1", Size: "45.2 MB", Layers: 5, LayerSizes: []int64{29e6, 12e6, 3e6, 1e6, 1},
		Platforms: []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"}, Host: "registry.example.com",
	}
	r := rand.New(rand.NewPCG(1, 2))
	for name, next := range map[string]func() Facts{"typical": func() Facts { return f }, "random": func() Facts { return randomFacts(r) }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				content, err := Draw(next())
				if err != nil {
					b.Fatal(err)
				}
				size += len(content)
			}
			b.ReportMetric(float64(size)/float64(b.N), "bytes/card")
		})
	}
}
