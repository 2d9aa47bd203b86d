package notifier

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/notifier/event"
)

// BenchmarkPush measures what a push adds to its request: the intent, and the event that
// is durable before the response.
func BenchmarkPush(b *testing.B) {
	for _, layers := range []int{1, 100, 10_000, 26_000} {
		p := image("a", layers).as("oss/app", "v1")
		for _, part := range []string{"Intend", "Complete"} {
			b.Run(fmt.Sprint(part, "/layers=", layers), func(b *testing.B) {
				r := newBenchRig(b)
				b.SetBytes(int64(len(p.Payload)))
				b.ReportAllocs()
				for b.Loop() {
					if part == "Complete" {
						b.StopTimer()
					}
					in, err := r.Intend(b.Context(), p)
					if err != nil {
						b.Fatal(err)
					}
					if part == "Complete" {
						b.StartTimer()
						err = in.Complete(b.Context())
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkDecode measures decoding and planning a push, which the first sink does.
func BenchmarkDecode(b *testing.B) {
	for _, layers := range []int{1, 100, 10_000, 26_000} {
		p := image("a", layers).as("oss/app", "v1")
		e := event.Event{Version: event.Version, MediaType: p.MediaType}
		e.Operation, e.ManifestDigest = event.OpPush, p.Digest
		payload := e.EncodePushed(p.Payload)
		b.Run(fmt.Sprint("layers=", layers), func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			for b.Loop() {
				e, err := event.Decode(payload)
				if err != nil || len(event.PlanOf(e).Records) != layers {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDrain measures how fast the sinks process pending pushes of 5 layers while the
// repo has no subscribers. TIDINGS_PUSHES sets their number; the default is 10000.
func BenchmarkDrain(b *testing.B) {
	pushes := 10_000
	if n, err := strconv.Atoi(os.Getenv("TIDINGS_PUSHES")); err == nil {
		pushes = n
	}
	const layers = 5
	for b.Loop() {
		b.StopTimer()
		r := newRig(b, shortWindows())
		r.stopSinks()
		var g errgroup.Group
		g.SetLimit(256)
		for i := range pushes {
			g.Go(func() error {
				p := image(fmt.Sprint(i), layers).as("oss/app", "edge")
				r.storage.put(p)
				in, err := r.Intend(b.Context(), p)
				if err != nil {
					return err
				}
				return in.Complete(b.Context())
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		r.stop()
		announce := shortWindows()
		announce.Tag = func(string) bool { return false }
		b.StartTimer()
		r.unpaced = true
		r.open(announce)
		for pending := true; pending; time.Sleep(10 * time.Millisecond) {
			pending = false
			for _, h := range r.Health() {
				pending = pending || h.Depth > 0
			}
		}
		b.ReportMetric(float64(pushes*layers)/b.Elapsed().Seconds(), "records/s")
		r.stop()
	}
}
