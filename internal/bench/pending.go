package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/internal/process"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// measurePending prints the memory of Tidings without pending pushes and with the given
// number. A reserve larger than the disk keeps the hold from writing. Some pushes are
// real requests; then the journal is filled with copies of their events while the
// process is stopped, because a million pushes would take 15 minutes.
func measurePending(ctx context.Context, o options, disk, memory string) error {
	if o.tidings == "" {
		return errors.New("-pending requires -tidings")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	addr, err := process.FreeAddr()
	if err != nil {
		return err
	}
	data := filepath.Join(disk, "data")
	config := common(addr, filepath.Join(memory, "tidings")) +
		middleware(data, withHold(addr)+"        journal: {limit: 64GiB}\n")

	s, err := startServer(ctx, "tidings", o.tidings, addr, config, disk)
	if err != nil {
		return err
	}
	s.WaitIdle(ctx, time.Second, 10*time.Second)
	fmt.Printf("idle: memory (RSS) %.0f MB\n", s.memoryMB())
	_ = s.Stop()

	// The hold exists now, so this configuration is only served.
	blocked := strings.Replace(config, "hold: {", "hold: {reserve: 1000TiB, ", 1)
	serve := func() (*server, error) { return serveOnly(ctx, "tidings", o.tidings, addr, blocked, disk) }
	if s, err = serve(); err != nil {
		return err
	}
	if err = s.seed(); err == nil {
		_, err = s.turn(ctx, quick, rows[1], 8)
	}
	_ = s.Stop()
	if err != nil {
		return err
	}

	depth, err := fill(ctx, filepath.Join(data, "journal"), o.pending)
	if err != nil {
		return fmt.Errorf("fill the journal: %w", err)
	}
	if s, err = serve(); err != nil {
		return err
	}
	defer s.Stop()
	if !s.WaitIdle(ctx, 3*time.Second, 2*time.Minute) {
		fmt.Println("not idle after 2 minutes")
	}
	fmt.Printf("%d pending pushes: memory (RSS) %.0f MB\n", depth, s.memoryMB())
	for _, row := range rows[:2] {
		got, err := s.turn(ctx, full, row, 8)
		if err != nil {
			return err
		}
		fmt.Printf("%s, concurrency 8: %.0f/s, CPU %.0f µs; then memory (RSS) %.0f MB\n",
			row.name, got.rate, micros(got.cpu), s.memoryMB())
	}
	return nil
}

// fill appends n copies of the events in the journal, and returns the number of
// events.
func fill(ctx context.Context, dir string, n int) (uint64, error) {
	j, err := journal.Open(journal.Config{Dir: dir, Limit: 64 << 30})
	if err != nil {
		return 0, err
	}
	defer j.Close()
	from, err := j.Read(journal.Pushes, j.Status(journal.Pushes).First-1, 200, 1<<20)
	if err != nil {
		return 0, err
	}
	if len(from) == 0 {
		return 0, errors.New("no events of the first pushes")
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var left atomic.Int64
	left.Store(int64(n))
	order := j.LastOrder()
	var workers sync.WaitGroup
	for range 256 { // they share fsyncs
		workers.Go(func() {
			for ctx.Err() == nil {
				i := left.Add(-1)
				if i < 0 {
					return
				}
				entry := from[i%int64(len(from))]
				if _, err := j.Append(ctx, journal.Pushes, order, entry.Payload); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	status := j.Status(journal.Pushes)
	return status.Last - status.First + 1, nil
}
