package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

const (
	smallRepo    = 10_000           // records of the repo for comparison
	probeCommits = 2000             // measured at each size
	idleTimeout  = 30 * time.Second // of background work, which would slow down commits
	fillTimeout  = 20 * time.Minute // to fill the repo
)

// measureLarge measures commits, memory, an export and a restart of the hold with n
// records.
func measureLarge(ctx context.Context, program, data string, n int) error {
	s, err := pds.StartTidings(ctx, program, data)
	if err != nil {
		return err
	}
	t, err := newTarget(ctx, s)
	if err != nil {
		return err
	}
	began := time.Now()
	for _, size := range []int{smallRepo, n} {
		for t.records < size && time.Since(began) < fillTimeout {
			if err := t.fill(ctx, min(size, t.records+10_000)); err != nil {
				return err
			}
		}
		now, peak := t.Memory()
		fmt.Printf("%d records after %s: memory %d MB, peak %d MB\n", t.records, time.Since(began).Round(time.Second), now>>20, peak>>20)
		t.WaitIdle(ctx, time.Second, idleTimeout)
		got, cpu, err := t.probe(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("  a commit of 1 record: mean %v, median %v, 99th %v, %v of CPU\n",
			got.mean.Round(10*time.Microsecond), got.p50.Round(10*time.Microsecond), got.p99.Round(10*time.Microsecond), cpu.Round(10*time.Microsecond))
	}
	if err := t.exportOnce(ctx); err != nil {
		return err
	}
	if err := s.Stop(); err != nil {
		return err
	}
	began = time.Now()
	if s, err = pds.RestartTidings(ctx, program, data); err != nil {
		return err
	}
	now, _ := s.Memory()
	fmt.Printf("restarted in %v, memory %d MB\n", time.Since(began).Round(time.Millisecond), now>>20)
	return s.Stop()
}

// probe measures sequential commits of one record.
func (t *target) probe(ctx context.Context) (got sample, cpu time.Duration, err error) {
	before := t.CPU()
	p := pace{turn: time.Minute, calls: probeCommits}
	got, err = loop(ctx, p, 1, 1, func() error {
		_, err := t.write(ctx, 1)
		return err
	})
	return got, (t.CPU() - before) / probeCommits, err
}

// exportOnce reads the whole repo and samples the server's memory.
func (t *target) exportOnce(ctx context.Context) error {
	began := time.Now()
	client := &http.Client{} // without the timeout of other requests
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL+"/xrpc/com.atproto.sync.getRepo?did="+t.DID, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var size, peak int64
	for {
		n, err := io.CopyN(io.Discard, res.Body, 8<<20)
		size += n
		now, _ := t.Memory()
		peak = max(peak, now)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	took := time.Since(began)
	fmt.Printf("  an export: %d MB in %v, %.0f MB/s, peak memory %d MB\n", size/1e6, took.Round(time.Millisecond), float64(size)/1e6/took.Seconds(), peak>>20)
	return nil
}
