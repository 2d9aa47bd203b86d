package notifier

import (
	"fmt"
	"testing"
)

// BenchmarkPush is what a push costs on its request: the intent, and the event
// that is durable before the answer.
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

// BenchmarkDecode is what the first sink that meets a push pays for its event.
func BenchmarkDecode(b *testing.B) {
	for _, layers := range []int{1, 100, 10_000, 26_000} {
		p := image("a", layers).as("oss/app", "v1")
		e := Event{Version: eventVersion, MediaType: p.MediaType}
		e.Operation, e.ManifestDigest = opPush, p.Digest
		payload := e.encodePushed(p.Payload)
		b.Run(fmt.Sprint("layers=", layers), func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			for b.Loop() {
				e, err := decodeEvent(payload)
				if err != nil || len(plan(e).Records) != layers {
					b.Fatal(err)
				}
			}
		})
	}
}
