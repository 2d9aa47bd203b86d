// Benchhold compares the hold of the tidings program with the reference PDS
// (testdata/reference-pds), each a process of its own, over HTTP.
//
// The two take turns of about a second for every row, because two runs on one
// machine differ by more than one would like: a ratio is that of two turns
// that were neighbours in time, and the median of these is printed. The load
// comes from this process, on the same cores, which costs the faster server
// more. CPU is the server's alone. The hold syncs every commit to disk, the
// reference (SQLite with synchronous=NORMAL) does not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

// Pace is how much is measured. Everything in it is a bound.
type pace struct {
	records int           // in each repository before the first turn
	rounds  int           // of a turn for every row and server
	turn    time.Duration // of load
	calls   int           // in one turn at most
	total   time.Duration // after which no new turn begins
}

var (
	full  = pace{records: 10_000, rounds: 5, turn: 1500 * time.Millisecond, calls: 20_000, total: 4 * time.Minute}
	quick = pace{records: 1_000, rounds: 2, turn: 500 * time.Millisecond, calls: 5_000, total: time.Minute}
)

func main() {
	isQuick := flag.Bool("quick", false, "fewer and shorter turns, under a minute")
	only := flag.String("rows", "", "only rows that this `regexp` matches")
	large := flag.Int("large", 0, "only measure the hold alone, with this `many` records")
	crowd := flag.Int("subscribers", 0, "only measure the hold's memory, with this `many` subscribers")
	profiles := flag.String("profiles", "", "keep a CPU profile of the hold's last turn of each row in this `folder`")
	disk := flag.String("disk", "/var/tmp", "`folder` on a real disk, for what the servers store")
	flag.Parse()

	p := full
	if *isQuick {
		p = quick
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p, *only, *large, *crowd, *disk, *profiles); err != nil {
		fmt.Fprintln(os.Stderr, "benchhold:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p pace, only string, large, crowd int, disk, profiles string) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(disk, "tidings-benchhold-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	const root = "."
	program, err := pds.Build(ctx, root, dir)
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "hold")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if large > 0 {
		return measureLarge(ctx, program, data, large)
	}
	if crowd > 0 {
		return measureCrowd(ctx, program, data, crowd)
	}

	if err := pds.Install(ctx, root); err != nil {
		return err
	}
	reference, err := pds.StartReference(ctx, root, filepath.Join(dir, "reference"))
	if err != nil {
		return err
	}
	defer reference.Stop()
	hold, err := pds.StartTidings(ctx, program, data)
	if err != nil {
		return err
	}
	defer hold.Stop()

	both := [2]*target{}
	for i, s := range []*pds.Server{reference, hold} {
		if both[i], err = newTarget(ctx, s); err != nil {
			return err
		}
		if err := both[i].fill(ctx, p.records); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	fmt.Printf("%d cores, load average %s, data in %s, %d records in each repository at first\n\n", runtime.NumCPU(), load(), disk, p.records)
	got, err := measure(ctx, p, both, chosen, profiles)
	if err != nil {
		return err
	}
	got.print(os.Stdout)
	for _, t := range both {
		now, most := t.Memory()
		fmt.Printf("memory of %-9s %4d MB, at most %4d MB, with %d records\n", t.Name+":", now>>20, most>>20, t.records)
	}
	fmt.Printf("load average at the end: %s\n", load())
	return nil
}

// load tells a reader how much else the machine had to do.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil || len(text) < 14 {
		return "unknown"
	}
	return string(text[:14])
}

// measure takes one row after another, so that what a row leaves to be tidied
// burdens no other. Those that read come first, while both repositories are of
// one size, and of the rest those that write little.
func measure(ctx context.Context, p pace, both [2]*target, chosen *regexp.Regexp, profiles string) (results, error) {
	got := results{}
	ends := time.Now().Add(p.total)
	for _, r := range slices.Concat(reading, writing) {
		if !chosen.MatchString(r.name) {
			continue
		}
		for round := range p.rounds + 1 { // the first one warms up
			if time.Now().After(ends) {
				fmt.Printf("stopped in round %d of %d of %s: %s are over\n", round, p.rounds, r.name, p.total)
				return got, nil
			}
			keep := ""
			if round == p.rounds && profiles != "" {
				keep = filepath.Join(profiles, r.file())
			}
			pair, err := turns(ctx, p, both, r, round, keep)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				got[r.name] = append(got[r.name], pair)
			}
		}
	}
	return got, nil
}

// turns has both servers take a turn, the other one first in every round.
func turns(ctx context.Context, p pace, both [2]*target, r row, round int, profile string) (pair [2]sample, err error) {
	for i := range both {
		i := (i + round) % 2
		done := func() error { return nil }
		if i == 1 && profile != "" {
			done = both[i].profile(ctx, p.turn, profile)
		}
		cpu := both[i].CPU()
		pair[i], err = r.turn(ctx, p, both[i])
		pair[i].cpu = both[i].CPU() - cpu
		both[i].hangUp()
		if err = errors.Join(err, done()); err != nil {
			return pair, fmt.Errorf("%s, %s: %w", both[i].Name, r.name, err)
		}
	}
	return pair, nil
}
