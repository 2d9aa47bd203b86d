package journal_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// Payloads of the usual size: a pull, and a push with a dozen layers.
var (
	pull = bytes.Repeat([]byte("x"), 400)
	push = bytes.Repeat([]byte("x"), 3000)
)

func benchmark(b *testing.B, do func(j *journal.Journal) error) {
	for _, n := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			j, err := journal.Open(journal.Config{Dir: b.TempDir(), Limit: 256 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			work := make(chan struct{}, 1024)
			done := make(chan error)
			b.ReportAllocs()
			b.ResetTimer()
			for range n {
				go func() {
					for range work {
						if err := do(j); err != nil {
							b.Error(err)
						}
					}
					done <- nil
				}()
			}
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			for range n {
				<-done
			}
		})
	}
}

func BenchmarkAppendPulls(b *testing.B) {
	benchmark(b, func(j *journal.Journal) error {
		_, err := j.Append(context.Background(), journal.Pulls, 1, pull)
		return err
	})
}

func BenchmarkComplete(b *testing.B) {
	benchmark(b, func(j *journal.Journal) error {
		in, err := j.Begin(context.Background(), 1, pull)
		if err != nil {
			return err
		}
		_, err = j.Complete(context.Background(), in, 1, push)
		return err
	})
}

// BenchmarkAppendPullsAlone measures one goroutine, without a channel of work.
func BenchmarkAppendPullsAlone(b *testing.B) {
	j, err := journal.Open(journal.Config{Dir: b.TempDir(), Limit: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Append(context.Background(), journal.Pulls, 1, pull); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	j, err := journal.Open(journal.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	const events = 50000
	for range events {
		if _, err := j.Append(context.Background(), journal.Pulls, 1, pull); err != nil {
			b.Fatal(err)
		}
	}
	after := uint64(0)
	b.ResetTimer()
	for n := 0; n < b.N; {
		entries, err := j.Read(journal.Pulls, after, 200, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		n += len(entries)
		if after += uint64(len(entries)); len(entries) == 0 {
			after = 0
		}
	}
}
