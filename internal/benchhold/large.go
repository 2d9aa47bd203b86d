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
	small        = 10_000           // records, that the large repository is compared with
	probeCommits = 2000             // whose time is measured at each size
	quietTime    = 30 * time.Second // for what filling has left to do, at most
	fillTime     = 20 * time.Minute // after which the repository is as large as it gets
)

// measureLarge measures the hold alone while its repository grows to n
// records: what a commit costs, memory, an export, a restart.
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
	for _, size := range []int{small, n} {
		for t.records < size && time.Since(began) < fillTime {
			if err := t.fill(ctx, min(size, t.records+10_000)); err != nil {
				return err
			}
		}
		now, most := t.Memory()
		fmt.Printf("%d records after %s: memory %d MB, at most %d MB\n", t.records, time.Since(began).Round(time.Second), now>>20, most>>20)
		if err := t.quiet(ctx); err != nil {
			return err
		}
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
	fmt.Printf("started again and answering after %v, memory %d MB\n", time.Since(began).Round(time.Millisecond), now>>20)
	return s.Stop()
}

// quiet waits until the server has done what filling left to do: a commit is
// to cost what it costs in a repository of this size.
func (t *target) quiet(ctx context.Context) error {
	for end := time.Now().Add(quietTime); time.Now().Before(end); {
		before := t.CPU()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		if t.CPU()-before < 50*time.Millisecond {
			return nil
		}
	}
	return nil
}

// probe measures commits of one record, one after the other.
func (t *target) probe(ctx context.Context) (got sample, cpu time.Duration, err error) {
	before := t.CPU()
	p := pace{turn: time.Minute, calls: probeCommits}
	got, err = loop(ctx, p, 1, 1, func() error {
		_, err := t.write(ctx, 1)
		return err
	})
	return got, (t.CPU() - before) / probeCommits, err
}

// exportOnce reads the whole repository and watches the server's memory.
func (t *target) exportOnce(ctx context.Context) error {
	began := time.Now()
	client := &http.Client{} // an export takes longer than a call
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL+"/xrpc/com.atproto.sync.getRepo?did="+t.DID, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var size, most int64
	for {
		n, err := io.CopyN(io.Discard, res.Body, 8<<20)
		size += n
		now, _ := t.Memory()
		most = max(most, now)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	took := time.Since(began)
	fmt.Printf("  an export: %d MB in %v, %.0f MB/s, memory at most %d MB\n", size/1e6, took.Round(time.Millisecond), float64(size)/1e6/took.Seconds(), most>>20)
	return nil
}
