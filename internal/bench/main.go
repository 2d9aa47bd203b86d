// Bench compares a registry with Tidings to the same registry without it, and to the
// same registry with distribution's notifications.
//
// The three run at the same time and take turns of about a second for every row,
// because separate runs on one machine differ by more than the effects measured here:
// only adjacent turns are compared. The load comes from this process, on the same
// cores. CPU is the server's alone and includes work after the response.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// pace limits the measurements.
type pace struct {
	rounds int
	turn   time.Duration // of load, for one row at one server
	ops    int           // maximum number of operations in a turn
	rest   time.Duration // idle time that shows the end of the work of a turn
	settle time.Duration // maximum wait for it
	total  time.Duration // no turn starts after it
}

var (
	full  = pace{rounds: 7, turn: 800 * time.Millisecond, ops: 20_000, rest: 120 * time.Millisecond, settle: 3 * time.Second, total: 5*time.Minute + 20*time.Second}
	quick = pace{rounds: 3, turn: 250 * time.Millisecond, ops: 5_000, rest: 80 * time.Millisecond, settle: 600 * time.Millisecond, total: 45 * time.Second}
)

var concurrencies = []int{1, 8, 32}

type options struct {
	plain, tidings string
	quick          bool
	counting       bool
	pending        int
	row            string
	at, rounds     int
	disk, memory   string
}

func main() {
	var o options
	flag.StringVar(&o.plain, "plain", "", "the upstream registry's `binary`")
	flag.StringVar(&o.tidings, "tidings", "", "Tidings' `binary`; empty: compare plain with plain, which shows the noise")
	flag.BoolVar(&o.quick, "quick", false, "fewer and shorter turns, under a minute")
	flag.BoolVar(&o.counting, "counting", false, "run Tidings without a hold: it only counts")
	flag.IntVar(&o.pending, "pending", 0, "only measure the memory of Tidings with this `number` of pending pushes")
	flag.StringVar(&o.row, "row", "", "only measure rows whose name contains `text`")
	flag.IntVar(&o.at, "c", 0, "only measure this `number` of concurrent operations")
	flag.IntVar(&o.rounds, "rounds", 0, "turns of each row; 0: 7, or 3 with -quick")
	flag.StringVar(&o.disk, "disk", "/var/tmp", "`folder` on a real disk, for Tidings' data")
	flag.StringVar(&o.memory, "memory", "/dev/shm", "`folder` in memory, for the registries' storage")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.plain == "" {
		return errors.New("-plain is missing: run testdata/scripts/bench")
	}
	disk, err := scratch(o.disk)
	if err != nil {
		return err
	}
	defer os.RemoveAll(disk)
	memory, err := scratch(o.memory)
	if err != nil {
		return err
	}
	defer os.RemoveAll(memory)
	fmt.Printf("storage in %s (%s), data in %s (%s), %d cores\n",
		filepath.Dir(memory), filesystem(memory), filepath.Dir(disk), filesystem(disk), runtime.NumCPU())

	if o.pending > 0 {
		return measurePending(ctx, o, disk, memory)
	}

	p := full
	if o.quick {
		p = quick
	}
	if o.rounds > 0 {
		p.rounds = o.rounds
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return !strings.Contains(r.name, o.row) })
	if o.at > 0 {
		concurrencies = []int{o.at}
	}
	if len(rows) == 0 {
		return fmt.Errorf("no row's name contains %q", o.row)
	}
	servers, closeAll, err := startAll(ctx, o, disk, memory)
	defer closeAll()
	if err != nil {
		return err
	}
	results := results{}
	for _, s := range servers {
		if err := s.seed(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.WaitIdle(ctx, time.Second, 5*time.Second)
		s.idleMB = s.memoryMB()
	}
	if err := measure(ctx, p, servers, results); err != nil {
		return err
	}
	results.print(os.Stdout, servers)
	return nil
}

// measure runs the turns; the first server changes with every round.
func measure(ctx context.Context, p pace, servers []*server, results results) error {
	began := time.Now()
	for round := -1; round < p.rounds; round++ { // round -1 warms up
		for _, row := range rows {
			for _, c := range concurrencies {
				if round < 0 && c != concurrencies[len(concurrencies)/2] {
					continue
				}
				if time.Since(began) > p.total {
					fmt.Printf("stopped in round %d of %d after %s\n", round+1, p.rounds, p.total)
					return nil
				}
				for i := range servers {
					s := servers[(i+max(round, 0))%len(servers)]
					got, err := s.turn(ctx, p, row, c)
					if err != nil {
						return fmt.Errorf("%s, %s, concurrency %d: %w", s.name, row.name, c, err)
					}
					if round >= 0 {
						results.add(row, c, s, round, got)
					}
				}
			}
		}
	}
	return nil
}

// scratch creates a folder in dir, or in the system's temporary folder if dir does not
// exist.
func scratch(dir string) (string, error) {
	if _, err := os.Stat(dir); err != nil {
		dir = os.TempDir()
	}
	return os.MkdirTemp(dir, "tidings-bench-")
}
