// Benchhold compares the hold of the tidings program with the reference PDS
// (testdata/reference-pds) over HTTP. Each is a process.
//
// The two take turns of about a second for every row, because separate runs on one
// machine differ too much: a ratio compares two adjacent turns, and the median of the
// ratios is printed. The load comes from this process, on the same cores, which costs
// the faster server more. CPU is the server's alone. The hold syncs every commit to
// disk, the reference (SQLite with synchronous=NORMAL) does not.
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

// pace limits the measurements.
type pace struct {
	records int           // in each repo before the first turn
	rounds  int           // turns of every row and server
	turn    time.Duration // duration of the load
	calls   int           // maximum number of requests in a turn
	total   time.Duration // no turn starts after it
}

var (
	full  = pace{records: 10_000, rounds: 5, turn: 1500 * time.Millisecond, calls: 20_000, total: 4 * time.Minute}
	quick = pace{records: 1_000, rounds: 2, turn: 500 * time.Millisecond, calls: 5_000, total: time.Minute}
)

func main() {
	isQuick := flag.Bool("quick", false, "fewer and shorter turns, under a minute")
	only := flag.String("rows", "", "only measure rows that match this `regexp`")
	large := flag.Int("large", 0, "only measure the hold, with this `number` of records")
	crowd := flag.Int("subscribers", 0, "only measure the hold's memory, with this `number` of subscribers")
	profiles := flag.String("profiles", "", "write CPU profiles of the hold's last turn of each row to this `folder`")
	disk := flag.String("disk", "/var/tmp", "`folder` on a real disk, for the data of the servers")
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
	const root = "." // the module
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
	fmt.Printf("%d cores, load average %s, data in %s, %d records in each repo at the start\n\n", runtime.NumCPU(), loadAverage(), disk, p.records)
	got, err := measure(ctx, p, both, chosen, profiles)
	if err != nil {
		return err
	}
	got.print(os.Stdout)
	for _, t := range both {
		now, peak := t.Memory()
		fmt.Printf("memory of %-9s %4d MB, peak %4d MB, with %d records\n", t.Name+":", now>>20, peak>>20, t.records)
	}
	fmt.Printf("load average at the end: %s\n", loadAverage())
	return nil
}

// loadAverage shows how busy the machine is.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil || len(text) < 14 {
		return "unknown"
	}
	return string(text[:14])
}

// measure runs one row after another, so that background work of a row affects no
// other. Reading rows come first, while both repos have the same size, then the others
// by the amount of writes.
func measure(ctx context.Context, p pace, both [2]*target, chosen *regexp.Regexp, profiles string) (results, error) {
	got := results{}
	ends := time.Now().Add(p.total)
	for _, r := range slices.Concat(reading, writing) {
		if !chosen.MatchString(r.name) {
			continue
		}
		for round := range p.rounds + 1 { // the first one warms up
			if time.Now().After(ends) {
				fmt.Printf("stopped in round %d of %d of %s after %s\n", round, p.rounds, r.name, p.total)
				return got, nil
			}
			profile := ""
			if round == p.rounds && profiles != "" {
				profile = filepath.Join(profiles, r.profileName())
			}
			pair, err := turns(ctx, p, both, r, round, profile)
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

// turns runs a turn on both servers; the first one alternates.
func turns(ctx context.Context, p pace, both [2]*target, r row, round int, profile string) (pair [2]sample, err error) {
	for i := range both {
		i := (i + round) % 2
		finish := func() error { return nil }
		if i == 1 && profile != "" {
			finish = both[i].profile(ctx, p.turn, profile)
		}
		cpu := both[i].CPU()
		pair[i], err = r.turn(ctx, p, both[i])
		pair[i].cpu = both[i].CPU() - cpu
		both[i].closeIdle()
		if err = errors.Join(err, finish()); err != nil {
			return pair, fmt.Errorf("%s, %s: %w", both[i].Name, r.name, err)
		}
	}
	return pair, nil
}
