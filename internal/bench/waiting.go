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

	"github.com/tidings-dev/tidings/notifier/journal"
)

// measureWaiting prints the memory of Tidings with nothing to deliver and with
// so many pushes waiting. The hold is kept from writing by asking it to leave
// more disk free than there is. A few pushes come from real requests; the
// journal is then filled with copies of their events while the process is
// down, since to push a million images takes a quarter of an hour.
func measureWaiting(ctx context.Context, o options, disk, memory string) error {
	if o.tidings == "" {
		return errors.New("-waiting needs -tidings")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	addr := freeAddr()
	data := filepath.Join(disk, "data")
	config := common(addr, filepath.Join(memory, "tidings")) +
		middleware(data, withHold(addr)+"        journal: {limit: 64GiB}\n")

	s, err := startServer(ctx, "tidings", o.tidings, addr, config, disk)
	if err != nil {
		return err
	}
	s.settle(ctx, time.Second, 10*time.Second)
	fmt.Printf("idle: memory (RSS) %.0f MB\n", megabytes(rss(s.cmd.Process.Pid)))
	s.stop()

	// The hold exists by now, so that this configuration only has to serve it.
	blocked := strings.Replace(config, "hold: {", "hold: {reserve: 1000TiB, ", 1)
	serve := func() (*server, error) { return serveOnly(ctx, "tidings", o.tidings, addr, blocked, disk) }
	if s, err = serve(); err != nil {
		return err
	}
	if err = s.seed(); err == nil {
		_, err = s.turn(ctx, quick, rows[1], 8)
	}
	s.stop()
	if err != nil {
		return err
	}

	depth, err := fill(ctx, filepath.Join(data, "journal"), o.waiting)
	if err != nil {
		return fmt.Errorf("fill the journal: %w", err)
	}
	if s, err = serve(); err != nil {
		return err
	}
	defer s.stop()
	if !s.settle(ctx, 3*time.Second, 2*time.Minute) {
		fmt.Println("still busy after 2 minutes")
	}
	fmt.Printf("%d pushes waiting: memory (RSS) %.0f MB\n", depth, megabytes(rss(s.cmd.Process.Pid)))
	for _, row := range rows[:2] {
		got, err := s.turn(ctx, full, row, 8)
		if err != nil {
			return err
		}
		fmt.Printf("%s, 8 at once: %.0f/s, CPU %.0f µs; then memory (RSS) %.0f MB\n",
			row.name, got.rate, micros(got.cpu), megabytes(rss(s.cmd.Process.Pid)))
	}
	return nil
}

// fill appends copies of the events in the journal until many more are in it.
// It returns how many there are then.
func fill(ctx context.Context, dir string, many int) (uint64, error) {
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
		return 0, errors.New("the pushes before left no event in it")
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var left atomic.Int64
	left.Store(int64(many))
	mark := j.Mark()
	var workers sync.WaitGroup
	for range 256 { // they share fsyncs
		workers.Go(func() {
			for ctx.Err() == nil {
				i := left.Add(-1)
				if i < 0 {
					return
				}
				entry := from[i%int64(len(from))]
				if _, err := j.Append(ctx, journal.Pushes, mark, entry.Payload); err != nil {
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
