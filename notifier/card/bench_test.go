package card

import "testing"

func BenchmarkDraw(b *testing.B) {
	f := Facts{
		Repository: "oss/team/ingress-controller", Version: "v1.2.3-rc.1", Size: "45.2 MB", Layers: 5, LayerSizes: []int64{29e6, 12e6, 3e6, 1e6, 1},
		Platforms: []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"}, Host: "registry.example.com",
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Draw(f); err != nil {
			b.Fatal(err)
		}
	}
}
