package runner

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// newRunner returns a runner without a state.
func newRunner(t *testing.T, log *bytes.Buffer) *Runner {
	t.Helper()
	return &Runner{
		Config:  Config{Now: time.Now, Backoff: time.Second, Log: slog.New(slog.NewTextHandler(log, nil))},
		readers: map[ID]*reader{}, waiting: map[string]delivery.Pause{}, paused: map[string]Pause{},
	}
}

// a rig is a runner with a state, and a reader that counts its steps.
type rig struct {
	*Runner
	t        *testing.T
	id       ID
	steps    atomic.Int64
	finished atomic.Int64
	failing  atomic.Bool
	slow     chan struct{} // a step ends when this is closed; nil: at once
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	r := &rig{t: t, id: ID{"records", journal.Pushes}}
	r.open(state.OnPebble(db))
	return r
}

func (r *rig) open(db state.Store) {
	var err error
	if r.Runner, err = New(Config{State: db, Now: time.Now, Backoff: time.Millisecond, Log: slog.New(slog.DiscardHandler)}); err != nil {
		r.t.Fatal(err)
	}
}

// run runs the reader until the test or the returned function ends it.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx, r.id, Job{Step: r.step, Finish: r.finish})
	}()
	stop = func() { cancel(); <-ended }
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) step(ctx context.Context) error {
	r.steps.Add(1)
	if r.slow != nil {
		<-r.slow
	}
	sink.Pause(ctx, time.Millisecond) // waits for events
	return nil
}

func (r *rig) finish(context.Context) error {
	if r.failing.Load() {
		return errFault
	}
	r.finished.Add(1)
	return nil
}

func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("timeout waiting until %s", what)
		}
	}
}

// A paused sink finishes what is on its way and takes no step, also after a restart, until
// it is resumed.
func TestPause(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.run()
	r.until("steps are taken", func() bool { return r.steps.Load() > 2 })
	if err := r.Pause(t.Context(), "records"); err != nil {
		t.Fatal(err)
	}
	steps := r.steps.Load()
	if p, paused := r.Paused("records"); !paused || p.Finishing || r.finished.Load() != 1 || time.Since(p.Since) > time.Minute {
		t.Errorf("paused %v, %+v; the batch was finished %d times", paused, p, r.finished.Load())
	}
	if err := r.Pause(t.Context(), "records"); err != nil {
		t.Errorf("a second pause: %v", err)
	}
	time.Sleep(20 * time.Millisecond)
	if got := r.steps.Load(); got != steps {
		t.Errorf("%d steps while paused", got-steps)
	}
	stop()
	r.failing.Store(true)
	r.open(r.State)
	r.run()
	r.until("the batch is being finished", func() bool { p, paused := r.Paused("records"); return paused && p.Finishing })
	r.failing.Store(false)
	r.until("the reader is idle", func() bool { p, _ := r.Paused("records"); return !p.Finishing })
	if got := r.steps.Load(); got != steps {
		t.Errorf("%d steps after a restart", got-steps)
	}
	if err := r.Resume("records"); err != nil {
		t.Fatal(err)
	}
	r.until("steps are taken again", func() bool { return r.steps.Load() > steps })
	if err := r.Resume("records"); !errors.Is(err, ErrNotPaused) {
		t.Errorf("a second resume: %v", err)
	}
	r.open(r.State)
	if _, paused := r.Paused("records"); paused {
		t.Error("the sink is paused after the next restart")
	}
}

// A pause that cannot wait longer for a step takes effect when the step ends, and work
// between steps is refused meanwhile.
func TestPauseDuringStep(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.slow = make(chan struct{})
	r.run()
	r.until("a step is taken", func() bool { return r.steps.Load() == 1 })
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Pause(short, "records"); err != nil {
		t.Fatal(err)
	}
	if p, paused := r.Paused("records"); !paused || !p.Finishing {
		t.Errorf("paused %v, %+v", paused, p)
	}
	if err := r.Between(short, r.id, func() error { return nil }); !errors.Is(err, ErrBusy) {
		t.Errorf("work between steps: %v", err)
	}
	close(r.slow)
	r.until("the reader is idle", func() bool { p, _ := r.Paused("records"); return !p.Finishing })
	if r.steps.Load() != 1 {
		t.Errorf("%d steps", r.steps.Load())
	}
}

// Work between steps has the reader for itself, also while it waits for events or after an
// error, and its error is returned.
func TestBetween(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var working, waiting atomic.Bool
	r.Backoff = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go r.Run(ctx, r.id, Job{Step: func(ctx context.Context) error {
		if working.Load() {
			t.Error("a step runs at the same time")
		}
		if r.steps.Add(1) == 1 {
			return errFault // and waits for an hour
		}
		waiting.Store(true)
		<-ctx.Done() // waits for events
		waiting.Store(false)
		return nil
	}})
	work := func() error {
		if waiting.Load() {
			t.Error("the reader waits for events at the same time")
		}
		working.Store(true)
		time.Sleep(5 * time.Millisecond)
		working.Store(false)
		return errFault
	}
	r.until("a step has failed", func() bool { return r.steps.Load() == 1 })
	for range 3 {
		if err := r.Between(t.Context(), r.id, work); !errors.Is(err, errFault) {
			t.Errorf("got %v", err)
		}
		r.until("the reader waits for events", waiting.Load)
	}
	other := ID{"announce", journal.Pushes} // that does not run
	if err := r.Between(t.Context(), other, func() error { return errFault }); !errors.Is(err, errFault) {
		t.Errorf("got %v", err)
	}
}
