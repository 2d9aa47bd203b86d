package repo

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/internal/race"
)

// layer returns a write of a record of the size that the registry writes.
func layer(n int) Write {
	text := fmt.Sprintf("sha256:%064x %s", n, strings.Repeat("x", 220))
	rkey := syntax.NewTID(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()+int64(n), 7).String()
	return Write{Create, "io.atcr.hold.layer", rkey, record(text)}
}

func diskRepo(t testing.TB) *Repo {
	return diskRepoWith(t, testConfig(t))
}

func diskRepoWith(t testing.TB, cfg Config) *Repo {
	cfg.FS = nil
	cfg.Dir = filepath.Join(t.TempDir(), "hold")
	return initRepo(t, cfg, profile())
}

// Memory does not grow with the number of records, also during an export. The
// tolerance is for what Pebble keeps in memory, such as memtables.
func TestMemory(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	const kept = 8 << 20
	cfg := testConfig(t)
	cfg.CacheSize = 1 << 20
	r := diskRepoWith(t, cfg)
	n := 0
	grow := func(to int) uint64 {
		for n < to {
			var writes []Write
			for range 200 {
				writes = append(writes, layer(n))
				n++
			}
			apply(t, r, writes...)
		}
		return heap()
	}
	small := grow(5_000)
	large := grow(40_000)
	if large > small+kept {
		t.Errorf("%d MiB in use with 5,000 records, %d MiB with 40,000", small>>20, large>>20)
	}
	peak, size := uint64(0), 0
	err := r.Export(context.Background(), writerFunc(func(p []byte) (int, error) {
		if size += len(p); size%(1<<20) < len(p) {
			peak = max(peak, heap())
		}
		return len(p), nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if size < 14<<20 || peak > large+kept {
		t.Errorf("an export of %d MiB takes memory from %d to %d MiB", size>>20, large>>20, peak>>20)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkApply makes commits on the machine's disk, with fsync.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1, 10, 200} {
		for _, callers := range []int{1, 32} {
			b.Run(fmt.Sprintf("writes=%d/callers=%d", size, callers), func(b *testing.B) {
				r := diskRepo(b)
				var n atomic.Int64
				b.SetParallelism((callers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
				call := func() {
					first := int(n.Add(int64(size))) - size
					writes := make([]Write, size)
					for i := range writes {
						writes[i] = layer(first + i)
					}
					if _, err := r.Apply(context.Background(), writes, nil); err != nil {
						b.Error(err)
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				if callers == 1 {
					for range b.N {
						call()
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							call()
						}
					})
				}
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

func BenchmarkExport(b *testing.B) {
	r := diskRepo(b)
	for i := 0; i < 20_000; i += 200 {
		var writes []Write
		for j := range 200 {
			writes = append(writes, layer(i+j))
		}
		apply(b, r, writes...)
	}
	b.ResetTimer()
	for range b.N {
		if err := r.Export(context.Background(), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*20_000)/b.Elapsed().Seconds(), "records/s")
}
