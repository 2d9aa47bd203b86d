// Benchaccount measures how fast a registry delivers a backlog of pushes to an account on
// the reference PDS (testdata/reference-pds), compared with what the PDS takes: creates in
// calls of 200, one after another, from one client that prepares them in advance. The two
// take turns.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/tidings-dev/tidings/internal/interop/pds"
	"github.com/tidings-dev/tidings/notifier/delivery"
)

const (
	layers = 5  // of each image
	warmUp = 10 // calls of the client that are not measured, while the PDS compiles its code

	// wanted is the share of the client's rate at which the backlog has to be delivered.
	wanted = 90 // percent

	drainTimeout = 5 * time.Minute
)

func main() {
	pushes := flag.Int("pushes", 2000, "`number` of pushes in the backlog")
	disk := flag.String("disk", "/var/tmp", "`folder` on a real disk, for the data of the servers")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *pushes, *disk); err != nil {
		fmt.Fprintln(os.Stderr, "benchaccount:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, pushes int, disk string) error {
	dir, err := os.MkdirTemp(disk, "tidings-benchaccount-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	const root = "." // the module
	if err := pds.Install(ctx, root); err != nil {
		return err
	}
	program, err := pds.Build(ctx, root, dir)
	if err != nil {
		return err
	}
	reference, err := pds.StartReference(ctx, root, filepath.Join(dir, "pds"))
	if err != nil {
		return err
	}
	defer reference.Stop()
	client, err := newClient(ctx, reference, warmUp+(pushes*layers/delivery.MaxWrites)+callsPerTurn)
	if err != nil {
		return err
	}
	gate, err := newGate(reference, client)
	if err != nil {
		return err
	}
	through := *reference
	through.URL, through.PLC = gate.url, gate.url
	registry, err := pds.NewRegistry(ctx, program, filepath.Join(dir, "registry"), &through, "        stats: {records: off}\n")
	if err != nil {
		return err
	}
	fmt.Printf("%d cores, data in %s, a backlog of %d pushes of %d layers\n\n", runtime.NumCPU(), disk, pushes, layers)
	if err := pushBacklog(ctx, registry, pushes); err != nil {
		return fmt.Errorf("push the backlog: %w", err)
	}
	if _, err := client.write(ctx, warmUp); err != nil {
		return err
	}
	if err := drain(ctx, registry); err != nil {
		return err
	}
	return report(gate)
}

// A sample is how fast records were written.
type sample struct {
	records  int
	duration time.Duration
	cpu      time.Duration // of the PDS
}

func (s *sample) add(other sample) {
	s.records += other.records
	s.duration += other.duration
	s.cpu += other.cpu
}

func (s sample) rate() float64 { return float64(s.records) / s.duration.Seconds() }

func (s sample) print(name string) {
	fmt.Printf("%-12s %5d records, %4.0f records/s; CPU of the PDS: %v each, %3.0f %% of a core\n", name, s.records, s.rate(),
		(s.cpu / time.Duration(s.records)).Round(10*time.Microsecond), 100*s.cpu.Seconds()/s.duration.Seconds())
}

// report prints the result. It is an error if the registry is too slow.
func report(g *gate) error {
	registry, alone, err := g.result()
	if err != nil {
		return err
	}
	alone.print("one client")
	registry.print("the registry")
	ratio := 100 * registry.rate() / alone.rate()
	fmt.Printf("\nthe registry delivers at %.0f %% of what the PDS takes from the client; wanted: %d %%\n", ratio, wanted)
	if ratio < wanted {
		return fmt.Errorf("%.0f %% are less than %d %%", ratio, wanted)
	}
	return nil
}
