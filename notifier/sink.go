package notifier

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/runner"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// Limits of what handle gets in one call.
const (
	handleEvents = 500
	handleBytes  = 4 << 20
)

// shutdownTimeout is how long a sink may take to finish its batch when Run ends.
const shutdownTimeout = 5 * time.Second

// minWake is the shortest time between two calls of handle with the same events.
const minWake = 5 * time.Millisecond

// runSink hands the push stream to a sink until ctx ends.
func (n *Notifier) runSink(ctx context.Context, s sink.Sink) error {
	work, cancel := finishing(ctx)
	defer cancel()
	n.runner.Run(ctx, runner.ID{Sink: s.Name(), Stream: journal.Pushes}, runner.Job{
		Step: func(turn context.Context) error {
			if !n.stores.Verified() {
				return n.verifyOnce(work)
			}
			return n.stepSink(turn, work, s)
		},
		Finish: func(context.Context) error {
			if err := n.verifyOnce(work); err != nil {
				return err
			}
			return s.Confirm(work)
		},
	})
	return nil
}

// verifyOnce verifies the stores until it has succeeded.
func (n *Notifier) verifyOnce(ctx context.Context) error {
	if n.stores.Verified() {
		return nil
	}
	if err := n.space(); err != nil {
		return err
	}
	return n.stores.Verify(ctx)
}

// finishing returns the context of work that is finished after ctx has ended, within a
// limit.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(shutdownTimeout, cancel) })
	return work, cancel
}

// stepSink reads the sink's next events, hands them over and moves its cursor.
func (n *Notifier) stepSink(ctx, work context.Context, s sink.Sink) error {
	after := n.journal.Cursor(journal.Pushes, s.Name())
	last := n.journal.Status(journal.Pushes).Last
	entries, err := n.journal.Read(journal.Pushes, after, handleEvents, handleBytes)
	if err != nil {
		return err
	}
	if len(entries) == 0 && last > after {
		// The journal was restored from an older copy and skips these numbers.
		return n.journal.SetCursor(journal.Pushes, s.Name(), last)
	}
	if len(entries) == 0 {
		return n.waitForEvents(ctx, work, s, after)
	}
	if err := n.space(); err != nil {
		return err
	}
	events := make([]event.Sequenced, 0, len(entries))
	for _, entry := range entries {
		e, err := n.readFor(pushesOf(s.Name()), entry)
		if err != nil && len(events) > 0 {
			break // the events before it are processed first
		}
		if err != nil && !undecodable(err) {
			return err
		}
		if err != nil {
			return n.giveUpAndSkip(s, entry.Seq, entry.Payload, err)
		}
		events = append(events, e)
	}
	return n.handleStep(ctx, work, s, events, entries)
}

// maxWait limits how long a sink with timed work waits for events, since the clock may jump,
// and since a request of the admin API may add work.
const maxWait = time.Minute

// waitForEvents returns when there are events after a sequence number or, if the sink has
// timed work, when it is due again.
func (n *Notifier) waitForEvents(ctx, work context.Context, s sink.Sink, after uint64) error {
	timed, ok := s.(sink.Timed)
	if !ok {
		n.journal.Wait(ctx, journal.Pushes, after)
		return nil
	}
	if err := n.space(); err != nil {
		return err
	}
	next, err := due(work, timed)
	if err == nil && s.Name() == announce.Name {
		err = n.endWaitingRetries()
	}
	if err != nil {
		return err
	}
	wait := maxWait
	if !next.IsZero() {
		wait = min(maxWait, max(next.Sub(n.now()), minWake))
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	n.journal.Wait(ctx, journal.Pushes, after)
	return nil
}

// due calls Due, and makes an error of a panic.
func due(ctx context.Context, s sink.Timed) (next time.Time, err error) {
	defer sink.Recover(&err)
	return s.Due(ctx)
}

// handleStep hands events to a sink and moves its cursor.
func (n *Notifier) handleStep(ctx, work context.Context, s sink.Sink, events []event.Sequenced, entries []journal.Entry) error {
	started := time.Now()
	done, wake, err := handle(work, s, events)
	var panicked *sink.PanicError
	if errors.As(err, &panicked) && len(events) > 1 {
		// One of them is the cause. It is given up when it is handled alone.
		n.log.Error("a sink panicked; it takes one event at a time", "sink", s.Name(), "error", err)
		events, entries = events[:1], entries[:1]
		done, wake, err = handle(work, s, events)
	}
	n.metrics.Handled(s.Name(), time.Since(started))
	n.progress.Send()
	if err := n.dead.Processed(pushesOf(s.Name()), numbers(events)); err != nil {
		return err
	}
	if done > 0 {
		if err := n.endRetries(s.Name(), events[:done]); err != nil {
			return err
		}
		if err := n.journal.SetCursor(journal.Pushes, s.Name(), events[done-1].Seq); err != nil {
			return err
		}
		if s.Name() == records.Name {
			n.recorded.Add(int64(done))
			n.quota.Written(events[done-1].Seq)
		}
	}
	var permanent *sink.PermanentError
	switch {
	case errors.As(err, &permanent):
		return n.giveUpAndSkip(s, events[done].Seq, entries[done].Payload, permanent.Err)
	case errors.As(err, &panicked):
		n.log.Error("a sink panicked", "sink", s.Name(), "event", events[0].Seq, "error", err, "stack", string(panicked.Stack))
		return n.giveUpAndSkip(s, events[0].Seq, entries[0].Payload, err)
	case err != nil:
		return err
	}
	if done == len(events) {
		n.lingerAfter(ctx, len(entries), handleEvents)
		return nil
	}
	sink.Pause(ctx, max(wake.Sub(n.now()), minWake))
	return nil
}

// numbers returns the sequence numbers of the events that have an effect.
func numbers(events []event.Sequenced) []uint64 {
	var all []uint64
	for _, e := range events {
		if !e.IsNothing() {
			all = append(all, e.Seq)
		}
	}
	return all
}

func handle(ctx context.Context, s sink.Sink, events []event.Sequenced) (done int, wake time.Time, err error) {
	defer func() {
		if panicked := (*sink.PanicError)(nil); errors.As(err, &panicked) {
			done = 0
		}
	}()
	defer sink.Recover(&err)
	return s.Handle(ctx, events)
}

// lingerAfter waits a little after a batch that took all pending events, so that
// those of a burst are processed together, in few batches and with few fsyncs. A
// single event does not wait, nor do those that an answer to another registry waits for.
func (n *Notifier) lingerAfter(ctx context.Context, taken, limit int) {
	awaited := n.awaited.Wait()
	if taken >= limit || n.answers.Load() > 0 {
		return
	}
	t := time.NewTimer(n.linger)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-awaited:
	}
}

// giveUpAndSkip gives an event up and moves the sink's cursor past it.
func (n *Notifier) giveUpAndSkip(s sink.Sink, seq uint64, payload []byte, reason error) error {
	if err := n.giveUp(pushesOf(s.Name()), seq, payload, reason); err != nil {
		return err
	}
	if err := s.Skip(seq); err != nil {
		return err
	}
	if s.Name() == records.Name {
		n.quota.Written(seq)
	}
	return n.journal.SetCursor(journal.Pushes, s.Name(), seq)
}

// giveUp keeps an event as a dead letter.
// If it is a retry, the letter of the event that is retried is updated.
func (n *Notifier) giveUp(box deadletters.Box, seq uint64, payload []byte, reason error) error {
	if r, retried, ok := event.CutRetry(payload); ok {
		seq, payload = r.Letter, retried
	}
	if err := n.dead.Add(box.Stream, box.Sink, seq, reason.Error(), payload); err != nil {
		return err
	}
	n.metrics.Dead(box.Sink, 1)
	n.log.Error("an event is given up", "sink", box.Sink, "stream", box.Stream, "event", seq, "error", reason)
	return nil
}

// giveUpFor returns a sink's giveUp. The event is part of the dead letter if the
// journal still has it.
func (n *Notifier) giveUpFor(sink string) func(seq uint64, reason error) error {
	return func(seq uint64, reason error) error {
		var payload []byte
		if entries, err := n.journal.Read(journal.Pushes, seq-1, 1, 1); err == nil && len(entries) > 0 && entries[0].Seq == seq {
			payload = entries[0].Payload
		}
		return n.giveUp(pushesOf(sink), seq, payload, reason)
	}
}
