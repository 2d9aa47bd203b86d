package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/usage"
)

// BenchmarkQuotaCheck measures the checks of pushes whose owner has up to a million layers. Each
// push has a new layer and four of the owner's. The measure is the median.
//
//   - refused, fits: the checks follow each other, so that data which is read often stays in the
//     caches of the processor.
//   - refused-cold, fits-cold: other work replaces the data in these caches before each check, as
//     in a registry.
//   - load: how long the layers take to load, and the memory that they need.
func BenchmarkQuotaCheck(b *testing.B) {
	for _, count := range []int{1_000, 100_000, 1_000_000} {
		r := newRig(b, int64(count))
		fillUsage(b, r, count)
		random := rand.New(rand.NewPCG(1, 2))
		push := func() []usage.Layer {
			layers := []usage.Layer{named(fmt.Sprint("new ", random.Int64()), 1)}
			for range 4 {
				layers = append(layers, named(fmt.Sprint(random.IntN(count/100), " ", random.IntN(100)), 1))
			}
			return layers
		}
		for _, outcome := range []string{"refused", "fits"} {
			fits := outcome == "fits"
			if fits {
				r.tiers.Limits["free"]++
			}
			b.Run(fmt.Sprintf("%s/%d", outcome, count), func(b *testing.B) { r.measureChecks(b, push, fits, func() {}) })
			b.Run(fmt.Sprintf("%s-cold/%d", outcome, count), func(b *testing.B) { r.measureChecks(b, push, fits, otherWork()) })
		}
		b.Run(fmt.Sprintf("load/%d", count), func(b *testing.B) { r.measureLoad(b, count) })
	}
}

// otherWork returns a function that replaces the data in the caches of a core.
func otherWork() func() {
	data := make([]byte, 16<<20)
	return func() {
		for i := 0; i < len(data); i += 64 {
			data[i]++
		}
	}
}

func (r *rig) measureChecks(b *testing.B, push func() []usage.Layer, fits bool, prepare func()) {
	times := make([]time.Duration, 5_000)
	for i := range times {
		layers := push()
		prepare()
		started := time.Now()
		reserved, err := r.Reserve(b.Context(), alice, layers)
		times[i] = time.Since(started)
		reserved.Release()
		var exceeded *ExceededError
		if errors.As(err, &exceeded) == fits || !fits && exceeded.Push != 1 {
			b.Fatal(err)
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "median-ns")
	b.ReportMetric(0, "ns/op")
}

func (r *rig) measureLoad(b *testing.B, count int) {
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	r.account(alice).replace(0, set{})
	before := heap()
	for b.Loop() {
		r.Unload()
		if err := r.Load(b.Context(), complete); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap()-before)/float64(count), "heap-B/layer")
}
