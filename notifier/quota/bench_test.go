package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// BenchmarkQuotaCheck measures the checks of pushes whose owner has up to a million layers. Each
// push has a new layer and four that the owner has. The measures are the median, and the blocks
// that were not in memory, both for one check:
//
//   - fits: the push fits, and is checked without a read.
//   - recent: it is refused, and its four layers are of a hundred that were read before.
//   - any: it is refused, and its four layers are any of the owner's.
//   - cold: as any, and before each push other rows have replaced the blocks in memory, with few
//     layers too. The pages of the files are in the memory of the operating system.
func BenchmarkQuotaCheck(b *testing.B) {
	for _, count := range []int{1_000, 100_000, 1_000_000} {
		r := newRig(b, int64(count))
		fillUsage(b, r, count)
		r.fillOthers(b)
		for store.Pebble(r.files).Metrics().Compact.NumInProgress > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		random := rand.New(rand.NewPCG(1, 2))
		push := func(manifests int) []usage.Layer {
			layers := []usage.Layer{layer(fmt.Sprint("new ", random.Int64()), 1)}
			for range 4 {
				layers = append(layers, layer(fmt.Sprint(random.IntN(manifests), " ", random.IntN(100)), 1))
			}
			return layers
		}
		b.Run(fmt.Sprintf("recent/%d", count), func(b *testing.B) {
			r.measure(b, 20_000, func() []usage.Layer { return push(1) }, func() {})
		})
		b.Run(fmt.Sprintf("any/%d", count), func(b *testing.B) {
			r.measure(b, 20_000, func() []usage.Layer { return push(count / 100) }, func() {})
		})
		b.Run(fmt.Sprintf("cold/%d", count), func(b *testing.B) {
			r.measure(b, 200, func() []usage.Layer { return push(count / 100) }, func() { r.readOthers(b) })
		})
		r.tiers.Limits["free"] = int64(count) + 1000
		b.Run(fmt.Sprintf("fits/%d", count), func(b *testing.B) {
			r.measure(b, 20_000, func() []usage.Layer { return push(count / 100) }, func() {})
		})
	}
}

// measure checks n pushes, and calls prepare before each.
func (r *rig) measure(b *testing.B, n int, push func() []usage.Layer, prepare func()) {
	var blocks int64
	times := make([]time.Duration, n)
	for i := range times {
		layers := push()
		prepare()
		// Code and tables are in use as in a registry with pushes of others.
		if _, err := r.Reserve(b.Context(), "did:plc:carol", []usage.Layer{layer("larger than the limit", 1<<40)}); err == nil {
			b.Fatal("the push of another owner is not refused")
		}
		before := store.Pebble(r.files).Metrics().BlockCache.Misses
		started := time.Now()
		reserved, err := r.Reserve(b.Context(), alice, layers)
		times[i] = time.Since(started)
		blocks += store.Pebble(r.files).Metrics().BlockCache.Misses - before
		reserved.Release()
		var exceeded *ExceededError
		if err != nil && (!errors.As(err, &exceeded) || exceeded.Push != 1) {
			b.Fatal(err)
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[n/2].Nanoseconds()), "median-ns")
	b.ReportMetric(float64(blocks)/float64(n), "blocks")
	b.ReportMetric(0, "ns/op")
}

// others are rows of other tables of the state, which together are larger than its cache.
const others = "z/"

func (r *rig) fillOthers(b *testing.B) {
	random := rand.NewChaCha8([32]byte{})
	for range 64 {
		var batch state.Batch
		for range 1000 {
			row := make([]byte, 272)
			random.Read(row)
			batch.Set(append([]byte(others), row[:16]...), row[16:])
		}
		if err := r.db.Commit(&batch, state.NoSync); err != nil {
			b.Fatal(err)
		}
	}
	if err := store.Pebble(r.files).Flush(); err != nil {
		b.Fatal(err)
	}
}

// readOthers reads each part of the rows twice: a cache keeps blocks that were used more than once
// longer than those of a scan.
func (r *rig) readOthers(b *testing.B) {
	for part := 0; part < 256; part += 32 {
		from, to := append([]byte(others), byte(part)), append([]byte(others), byte(part+31), 0xff)
		for range 2 {
			if err := r.db.Scan(state.Range{From: from, To: to}, func(_, _ []byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	}
}
