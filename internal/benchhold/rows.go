package main

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// row is a kind of load.
type row struct {
	name string
	unit string
	want float64 // ratio to the reference's rate; 0: no requirement
	turn func(context.Context, pace, *target) (sample, error)
}

// sample is the result of a turn.
type sample struct {
	rate float64       // of the row's unit
	mean time.Duration // of a request, or of the row's unit
	p50  time.Duration
	p99  time.Duration
	done int // records or requests, for the CPU time of each
	cpu  time.Duration
}

var reading = []row{
	{"_health", "calls/s", 0, reads(1, "_health")}, // the cost of HTTP alone
	{"repo.getRecord", "calls/s", 20, reads(1, "com.atproto.repo.getRecord?repo={did}&collection="+collection+"&rkey={rkey}")},
	{"repo.getRecord, 8 clients", "calls/s", 20, reads(8, "com.atproto.repo.getRecord?repo={did}&collection="+collection+"&rkey={rkey}")},
	{"sync.getRecord", "calls/s", 20, reads(1, "com.atproto.sync.getRecord?did={did}&collection="+collection+"&rkey={rkey}")},
	{"sync.getRecord, 8 clients", "calls/s", 20, reads(8, "com.atproto.sync.getRecord?did={did}&collection="+collection+"&rkey={rkey}")},
	{"getRepo", "MB/s", 8, export},
}

var writing = []row{
	{"applyWrites, 1 a call", "records/s", 12, writes(1, 1)},
	{"applyWrites, 10 a call", "records/s", 15, writes(10, 1)},
	{"applyWrites, 10 a call, 8 clients", "records/s", 30, writes(10, 8)},
	{"applyWrites, 200 a call", "records/s", 25, writes(200, 1)},
	{"commit to frame, 100 subscribers", "commits/s", 0, frames(100)},
}

func writes(n, clients int) func(context.Context, pace, *target) (sample, error) {
	return func(ctx context.Context, p pace, t *target) (sample, error) {
		return loop(ctx, p, n, clients, func() error {
			_, err := t.write(ctx, n)
			return err
		})
	}
}

func reads(clients int, method string) func(context.Context, pace, *target) (sample, error) {
	return func(ctx context.Context, p pace, t *target) (sample, error) {
		return loop(ctx, p, 1, clients, func() error {
			_, err := t.call(ctx, http.MethodGet, strings.NewReplacer("{did}", t.DID, "{rkey}", t.key()).Replace(method), nil)
			return err
		})
	}
}

func export(ctx context.Context, p pace, t *target) (sample, error) {
	var size int64
	got, err := loop(ctx, p, 1, 1, func() error {
		n, err := t.download("com.atproto.sync.getRepo?did=" + t.DID)
		size += n
		return err
	})
	if got.done > 0 {
		got.rate *= float64(size) / float64(got.done) / 1e6
		got.done = int(size / 1e6)
	}
	return got, err
}

// loop sends requests from concurrent clients until the turn is over. Each request
// counts as n operations.
func loop(ctx context.Context, p pace, n, clients int, call func() error) (sample, error) {
	var (
		mu     sync.Mutex
		took   []time.Duration
		failed error
		wg     sync.WaitGroup
	)
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for range p.calls / clients {
				at := time.Now()
				err := call()
				mu.Lock()
				took = append(took, time.Since(at))
				if err != nil {
					failed = err
				}
				stop := failed != nil || time.Since(began) > p.turn || ctx.Err() != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	all := time.Since(began)
	return timings(took, n, all), failed
}

func timings(took []time.Duration, n int, all time.Duration) sample {
	if len(took) == 0 {
		return sample{}
	}
	slices.Sort(took)
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	return sample{
		rate: float64(len(took)*n) / all.Seconds(),
		mean: sum / time.Duration(len(took)),
		p50:  took[len(took)/2], p99: took[len(took)*99/100],
		done: len(took) * n,
	}
}
