package notifier

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/operate"
	"github.com/tidings-dev/tidings/notifier/runner"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// PauseSink pauses a sink, durably. It waits until the sink is idle, at most until ctx ends;
// Health says whether it is.
func (n *Notifier) PauseSink(ctx context.Context, name string) error {
	if !slices.ContainsFunc(n.Positions(), func(p Position) bool { return p.Sink == name }) {
		return fmt.Errorf("%w: %s", ErrUnknownSink, name)
	}
	return n.runner.Pause(ctx, name)
}

// ResumeSink ends the pause of a sink.
func (n *Notifier) ResumeSink(name string) error { return n.runner.Resume(name) }

// SkipEvents gives up the pending events of a sink up to a sequence number, 0 for the first of
// them.
func (n *Notifier) SkipEvents(ctx context.Context, box deadletters.Box, to uint64) (done operate.Skipped, err error) {
	err = n.between(ctx, box, func(r operate.Reader) error {
		if box.Sink == sink.Counters {
			if err := n.counter.UsesLost(); err != nil {
				return err
			}
		}
		done, err = n.operator().Skip(ctx, r, to)
		n.metrics.Dead(box.Sink, done.Events)
		n.log.Warn("an operator skips events", "sink", box.Sink, "stream", box.Stream, "first", done.First, "last", done.Last, "events", done.Events, "error", err)
		return err
	})
	return done, err
}

// CheckSkip returns the error of SkipEvents if there are no such events.
func (n *Notifier) CheckSkip(box deadletters.Box, to uint64) error {
	if err := n.checkReader(box); err != nil {
		return err
	}
	return n.operator().CheckSkip(n.readerOf(box), to)
}

// RewindSink lets a sink handle the events after a sequence number again or, if since is not
// zero, those that were recorded since then.
func (n *Notifier) RewindSink(ctx context.Context, name string, to uint64, since time.Time) (done operate.Rewound, err error) {
	err = n.between(ctx, pushesOf(name), func(r operate.Reader) error {
		if err := n.verifyOnce(ctx); err != nil {
			return err
		}
		done, err = n.operator().Rewind(ctx, r, n.rewindTo(to, since))
		n.log.Warn("an operator rewinds a sink", "sink", name, "position", done.Position, "events", done.Events, "error", err)
		return err
	})
	return done, err
}

// CheckRewind returns the error of RewindSink if the sink cannot be rewound, or is not beyond
// such events.
func (n *Notifier) CheckRewind(name string, to uint64, since time.Time) error {
	if err := n.checkReader(pushesOf(name)); err != nil {
		return err
	}
	return operate.CheckRewind(n.readerOf(pushesOf(name)), n.rewindTo(to, since))
}

// rewindTo returns the position to which a sink is rewound.
func (n *Notifier) rewindTo(to uint64, since time.Time) uint64 {
	if since.IsZero() {
		return to
	}
	return n.operator().Before(journal.Pushes, since)
}

// Repair lets the running process rebuild the ledger from the account's records and compare it
// with storage. The events of the comparison go through the journal like any others.
func (n *Notifier) Repair(ctx context.Context) error {
	begin := n.stores.BeginRepair
	for _, s := range n.sinks {
		inner := begin
		begin = func() error {
			return n.between(ctx, pushesOf(s.Name()), func(operate.Reader) error { return inner() })
		}
	}
	if err := begin(); err != nil {
		return err
	}
	n.repairs.Send()
	return nil
}

func (n *Notifier) operator() *operate.Operator {
	return &operate.Operator{Journal: n.journal, Letters: n.dead}
}

// between calls work with the reader of a sink between two of its steps.
func (n *Notifier) between(ctx context.Context, box deadletters.Box, work func(operate.Reader) error) error {
	if err := n.checkReader(box); err != nil {
		return err
	}
	if err := n.space(); err != nil {
		return err
	}
	return n.runner.Between(ctx, runner.ID{Sink: box.Sink, Stream: box.Stream}, func() error { return work(n.readerOf(box)) })
}

// checkReader returns an error unless there is a reader of a sink for a stream.
func (n *Notifier) checkReader(box deadletters.Box) error {
	if _, runs := n.journal.Cursors(box.Stream)[box.Sink]; !runs {
		return fmt.Errorf("%w: %s of %s", ErrUnknownSink, box.Sink, box.Stream)
	}
	return nil
}

func (n *Notifier) readerOf(box deadletters.Box) operate.Reader {
	r := operate.Reader{Box: box, Position: n.position(box.Stream, box.Sink).Done}
	for _, s := range n.sinks {
		if box == pushesOf(s.Name()) {
			r.Sink = s
		}
	}
	return r
}
