package sink

import (
	"context"
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/purged"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// Counters is the name of the counter's cursor in both streams. The cursor that decides
// is the counter's own, which moves in the same commit as its numbers; the journal gets
// a copy, to know which events it may delete.
const Counters = "counters"

// A Sink processes the events of the push stream in order.
type Sink interface {
	// Name is the name of the sink's cursor in the journal.
	Name() string
	// Confirm confirms the batch in the sink's outbox, if there is one.
	Confirm(ctx context.Context) error
	// Skip notes that an event was given up, before the cursor moves past it.
	Skip(seq uint64) error
	// Handle processes events. The first done of them are processed, durably. An
	// error is about the event at done: a *PermanentError gives it up, after any
	// other it is tried again. Without an error and with events left, Handle is
	// called again at wake.
	Handle(ctx context.Context, events []event.Sequenced) (done int, wake time.Time, err error)
}

// A Timed sink has work to do at times without events.
type Timed interface {
	// Due does the work whose time has come. It is called again at next, if that is not
	// zero, and when it may have work after events.
	Due(ctx context.Context) (next time.Time, err error)
}

// A Skippable sink lets an operator skip events that it has not processed.
type Skippable interface {
	// FirstOnItsWay returns the first event of the batch in the outbox, 0 if there is none.
	FirstOnItsWay() (seq uint64, err error)
	// SkipBatch gives up the events up to a sequence number that are part of the batch in the
	// outbox, with a reason, takes them out of it and returns how many there were. Those that
	// are written stay. After an error that is not known of some of them, and SkipBatch can be
	// repeated.
	SkipBatch(ctx context.Context, upTo uint64, reason error) (events int, err error)
	// Processed returns a function that reports whether an event is processed, or part of the
	// batch in the outbox, although the cursor has not moved past it.
	Processed() (func(seq uint64) bool, error)
}

// A Rewindable sink can handle events a second time without a second effect.
type Rewindable interface {
	// Rewind moves the sink's own position from one event back to another, durably, after
	// its cursor in the journal has moved. The outbox is empty.
	Rewind(ctx context.Context, to, from uint64) error
}

// Deps is what each sink that publishes needs.
type Deps struct {
	Account  *delivery.Repo
	State    state.Store
	Storage  *stored.Checked // nil: storage cannot be asked
	Private  *PrivateImages
	Purged   *purged.Store
	Public   func(repository string) bool
	GiveUp   func(seq uint64, reason error) error
	Revision func(context.Context) string // the repo's, to be noted with a sent batch; "": not now
	Metrics  *Metrics
	Log      *slog.Logger
}

// A PermanentError does not go away when the event is tried again.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }
