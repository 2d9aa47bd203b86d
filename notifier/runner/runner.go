package runner

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Config configures New.
type Config struct {
	State   state.Store // has the pauses of operators
	Now     func() time.Time
	Backoff time.Duration // first delay after an error, doubled up to a minute
	Metrics *sink.Metrics // nil: none
	Log     *slog.Logger
}

// A Runner runs the readers of all sinks. It is safe for concurrent use.
type Runner struct {
	Config

	pausing sync.Mutex  // held while the pause of a sink begins or ends
	changed sink.Signal // sent when a reader becomes idle, or its sink is resumed

	mu      sync.Mutex
	readers map[ID]*reader
	waiting map[string]delivery.Pause // sinks that cannot write at the moment
	paused  map[string]Pause          // sinks that an operator has paused
}

// An ID identifies a reader: a sink may read both streams.
type ID struct {
	Sink   string
	Stream journal.Stream
}

// New returns a runner. It reads the pauses of operators.
func New(cfg Config) (*Runner, error) {
	paused, err := ReadPauses(cfg.State)
	return &Runner{Config: cfg, readers: map[ID]*reader{}, waiting: map[string]delivery.Pause{}, paused: paused}, err
}

// A Job is what a reader does.
type Job struct {
	// Step reads and processes the next events, or waits for events until ctx ends. Work
	// that it has begun is finished also if ctx ends.
	Step func(ctx context.Context) error
	// Finish finishes the batch that is on its way, if there is one, when the sink is
	// paused. nil: there is no such batch, or it can be left as it is.
	Finish func(ctx context.Context) error
}

// Run takes the steps of a reader until ctx ends.
func (r *Runner) Run(ctx context.Context, id ID, job Job) {
	rd, backoff := r.reader(id), r.NewBackoff(id.Sink)
	for ctx.Err() == nil {
		turn, end := rd.begin(ctx)
		switch err := r.take(ctx, turn, rd, id.Sink, job); {
		case err == nil:
			backoff.Reset()
		case turn.Err() == nil:
			backoff.Sleep(turn, err)
		}
		end()
	}
}

// take takes a step or, if the sink is paused, waits until turn ends.
func (r *Runner) take(ctx, turn context.Context, rd *reader, sink string, job Job) error {
	if r.isIdle(rd) {
		<-turn.Done()
		return nil
	}
	if !rd.acquire(ctx) {
		return nil
	}
	defer rd.release()
	if _, paused := r.Paused(sink); !paused {
		return job.Step(turn)
	}
	if err := job.finish(ctx); err != nil {
		return err
	}
	r.setIdle(sink, rd)
	return nil
}

func (j *Job) finish(ctx context.Context) error {
	if j.Finish == nil {
		return nil
	}
	return j.Finish(ctx)
}

// Between calls work between two steps of a reader, which does not wait for events
// meanwhile.
func (r *Runner) Between(ctx context.Context, id ID, work func() error) error {
	rd := r.reader(id)
	rd.want(1)
	defer rd.want(-1)
	if !rd.acquire(ctx) {
		return ErrBusy
	}
	defer rd.release()
	return work()
}

func (r *Runner) reader(id ID) *reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers[id] == nil {
		r.readers[id] = &reader{running: make(chan struct{}, 1)}
	}
	return r.readers[id]
}
