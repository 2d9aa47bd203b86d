// Chaos pushes images to a registry whose account is on a reference PDS
// (testdata/reference-pds) while everything between them fails: a proxy loses, delays and
// replaces responses, before and after the PDS has applied the writes; tokens expire; the
// PDS is stopped and killed; the registry is killed.
//
// When the faults have ended and the registry has no pending events, the records in the
// PDS must be exactly those of the pushed images, and the calls that reached the PDS must
// have cost no more than 5 % more points than one create for each record.
//
// A seed determines the images, and which faults occur when. What they meet also depends
// on the speed of the machine. The history and the verdict are printed; a failed run
// leaves its files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	pushesPerMinute = 100
	maxPushes       = 1000

	// drainTimeout bounds the time after the last fault in which the pending events have
	// to be processed.
	drainTimeout = 5 * time.Minute
)

func main() {
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()%1_000_000), "`number` that determines images and faults; default: a new one")
	minutes := flag.Float64("minutes", 10, "duration of the faults; with 10 minutes 1,000 images are pushed, with fewer 100 a minute")
	disk := flag.String("disk", "/var/tmp", "`folder` on a real disk, for the data of the servers")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *seed, time.Duration(*minutes*float64(time.Minute)), *disk); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// errFailed is returned after the verdict was printed.
var errFailed = errors.New("failed")

func run(ctx context.Context, seed uint64, duration time.Duration, disk string) error {
	dir, err := os.MkdirTemp(disk, "tidings-chaos-")
	if err != nil {
		return err
	}
	pushes := max(1, min(maxPushes, int(duration.Minutes()*pushesPerMinute)))
	fmt.Printf("seed %d, %d pushes and faults for %s, files in %s\n", seed, pushes, duration, dir)
	s, err := start(ctx, ".", dir)
	if err != nil {
		return err
	}
	defer s.stop()
	h := newHistory(os.Stdout)
	images, err := s.disturb(ctx, h, seed, pushes, duration)
	if err != nil {
		return err
	}
	left, err := s.drain(ctx, h)
	if err != nil {
		return err
	}
	problems, err := s.judge(ctx, images, left)
	if err != nil {
		return err
	}
	if problems {
		s.printLog(os.Stdout)
		return fmt.Errorf("seed %d: %w; the files are in %s", seed, errFailed, dir)
	}
	s.stop()
	return os.RemoveAll(dir)
}

// disturb pushes the images while the steps of the schedule are run. At the end all
// servers run.
func (s *servers) disturb(ctx context.Context, h *history, seed uint64, pushes int, duration time.Duration) ([]image, error) {
	var network, processes []step
	for _, step := range schedule(seed, duration) {
		if step.ofProcess() {
			processes = append(processes, step)
		} else {
			network = append(network, step)
		}
	}
	var images []image
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() (err error) {
		images, err = pushAll(ctx, s.registry.Host, seed, pushes, duration)
		h.add("%d images are pushed", len(images))
		return err
	})
	all.Go(func() error { return s.takeAll(ctx, h, network) })
	all.Go(func() error { return s.takeAll(ctx, h, processes) })
	err := all.Wait()
	return images, err
}

// takeAll runs steps at their times or, if an earlier one takes longer, after it.
func (s *servers) takeAll(ctx context.Context, h *history, steps []step) error {
	for _, step := range steps {
		wait(ctx, time.Until(h.begun.Add(step.at)))
		if err := s.take(ctx, h, step); err != nil {
			return err
		}
	}
	return nil
}

// take runs a step until it has ended.
func (s *servers) take(ctx context.Context, h *history, step step) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.add("%s", step)
	if step.call > 0 {
		s.waitCall(ctx, step.call)
	}
	switch step.what {
	case callsFail:
		s.proxy.Start(step.fault)
		wait(ctx, step.lasts)
		h.add("  ended: %s, %d calls", step.fault, s.proxy.End())
	case tokenExpires:
		s.proxy.ExpireToken()
	case sessionEnds:
		s.proxy.RevokeSession()
	case registryKilled:
		s.registry.Kill()
		if err := s.registry.Start(ctx); err != nil {
			return err
		}
		h.add("  registry started")
	case pdsStops, pdsKilled:
		if step.what == pdsKilled {
			s.pds.Kill()
		} else if err := s.pds.Stop(); err != nil {
			return err
		}
		wait(ctx, step.lasts)
		if err := s.pds.ResumeReference(ctx); err != nil {
			return err
		}
		h.add("  PDS started")
	}
	return nil
}

// drain waits until no event is pending, or for drainTimeout.
func (s *servers) drain(ctx context.Context, h *history) (left backlog, err error) {
	h.add("faults have ended")
	for end := time.Now().Add(drainTimeout); ; {
		left.pending, left.deadLetters, err = s.registry.Pending(ctx)
		if err != nil {
			return left, err
		}
		if left.pending == 0 || time.Now().After(end) {
			h.add("%d events are pending", left.pending)
			return left, nil
		}
		if wait(ctx, 200*time.Millisecond); ctx.Err() != nil {
			return left, ctx.Err()
		}
	}
}

// backlog is what is left for the registry's sinks.
type backlog struct {
	pending     uint64
	deadLetters int
}

// judge compares the repo with what was pushed and prints the verdict.
func (s *servers) judge(ctx context.Context, images []image, left backlog) (failed bool, err error) {
	want := contents{}
	for _, m := range images {
		want.expect(s.pds.DID, m)
	}
	got, err := s.listRepo(ctx)
	if err != nil {
		return false, err
	}
	c := s.tally.total()
	problems := compare(want, got)
	problems = append(problems, checkPoints(want.records(), c)...)
	if left != (backlog{}) {
		problems = append(problems, fmt.Sprintf("%d events are pending, %d are dead letters", left.pending, left.deadLetters))
	}
	fmt.Printf("%d images, %d records expected, %d found\n", len(images), want.records(), got.records())
	fmt.Printf("%d calls of applyWrites cost %d points; the minimum is %d; calls without a response cost %d, refused ones %d; %d writes were repeated; %d logins\n",
		c.calls, c.points, want.records()*points["create"], c.unanswered, c.refused, c.repeated, c.logins)
	for _, p := range problems {
		fmt.Println("FAILED:", p)
	}
	if problems == nil {
		fmt.Println("PASSED: every record exactly once")
	}
	return problems != nil, nil
}
