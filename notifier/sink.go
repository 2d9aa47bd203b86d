package notifier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// A sink takes the events of the push stream in order.
type sink interface {
	name() string
	// resume settles what an earlier process left on its way.
	resume(ctx context.Context) error
	// skip is told that an event was given up.
	skip(seq uint64) error
	// handle does what the events ask for. Those before done are finished,
	// durably. An error leaves the event at done unfinished: a
	// *permanentError gives it up, any other is tried again. Without an error
	// and with events left, it is called again at wake.
	handle(ctx context.Context, events []sequenced) (done int, wake time.Time, err error)
}

// A sequenced event has its number in the push stream.
type sequenced struct {
	seq uint64
	*Event
}

// A permanentError says that trying again cannot help.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// How much a sink is handed at once.
const (
	handEvents = 500
	handBytes  = 4 << 20
)

const (
	longestBackoff  = time.Minute
	shortestWait    = 5 * time.Millisecond // between two looks at the same events
	shutdownAllowed = 5 * time.Second      // to finish what a sink holds when the process is asked to stop
)

// carry hands the push stream to a sink until ctx ends.
func (n *Notifier) carry(ctx context.Context, s sink) error {
	// What was begun is finished, within a limit, after ctx has ended.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(shutdownAllowed, cancel) })

	wait := n.newBackoff(s.name())
	for ctx.Err() == nil {
		if err := n.Space(); err != nil {
			wait.sleep(ctx, err)
			continue
		}
		if err := n.prove(work); err != nil {
			wait.sleep(ctx, err)
			continue
		}
		break
	}
	for ctx.Err() == nil {
		if err := n.step(ctx, work, s); err != nil {
			wait.sleep(ctx, err)
			continue
		}
		wait.reset()
	}
	return nil
}

// step reads what is next for the sink, hands it over, and moves its cursor.
func (n *Notifier) step(ctx, work context.Context, s sink) error {
	after := n.Journal.Cursor(journal.Pushes, s.name())
	last := n.Journal.Status(journal.Pushes).Last
	entries, err := n.Journal.Read(journal.Pushes, after, handEvents, handBytes)
	if err != nil {
		return err
	}
	if len(entries) == 0 && last > after {
		// The journal was set back and does not use these numbers again.
		return n.Journal.SetCursor(journal.Pushes, s.name(), last)
	}
	if len(entries) == 0 {
		n.Journal.Wait(ctx, journal.Pushes, after)
		return nil
	}
	if err := n.Space(); err != nil {
		return err
	}
	events := make([]sequenced, 0, len(entries))
	for _, entry := range entries {
		e, err := n.recent.decode(entry)
		if err != nil {
			if len(events) > 0 {
				break // what comes before it goes first
			}
			if errors.Is(err, errNewer) {
				return err
			}
			return n.giveUp(s, entry.Seq, entry.Payload, err)
		}
		events = append(events, sequenced{entry.Seq, e})
	}
	begun := time.Now()
	done, wake, err := handle(work, s, events)
	if panicked := (*panicError)(nil); errors.As(err, &panicked) && len(events) > 1 {
		// One of them is the cause: they go one by one until it is met alone.
		n.log.Error("a sink panicked; it takes one event at a time", "sink", s.name(), "err", err)
		events, entries = events[:1], entries[:1]
		done, wake, err = handle(work, s, events)
	}
	n.Metrics.handled(s.name(), time.Since(begun))
	n.results.ring()
	if done > 0 {
		if err := n.Journal.SetCursor(journal.Pushes, s.name(), events[done-1].seq); err != nil {
			return err
		}
	}
	var permanent *permanentError
	var panicked *panicError
	switch {
	case errors.As(err, &permanent):
		return n.giveUp(s, events[done].seq, entries[done].Payload, permanent.err)
	case errors.As(err, &panicked):
		n.log.Error("a sink panicked", "sink", s.name(), "event", events[0].seq, "err", err, "stack", string(panicked.stack))
		return n.giveUp(s, events[0].seq, entries[0].Payload, err)
	case err != nil:
		return err
	}
	if done == len(events) {
		n.rest(ctx, len(entries), handEvents)
		return nil
	}
	pause(ctx, max(wake.Sub(n.Now()), shortestWait))
	return nil
}

// A panicError is what a sink panicked with.
type panicError struct {
	reason any
	stack  []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.reason) }

// handle hands events to a sink, and turns a panic into an error: an event that
// nobody thought of ends neither the registry nor the sink.
func handle(ctx context.Context, s sink, events []sequenced) (done int, wake time.Time, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			done, err = 0, &panicError{reason, debug.Stack()}
		}
	}()
	return s.handle(ctx, events)
}

// rest waits a little after a batch that took all there was, so that what
// comes meanwhile is taken together: few batches and few fsyncs for many
// events, and no wait for a single one.
func (n *Notifier) rest(ctx context.Context, taken, most int) {
	if taken < most {
		pause(ctx, n.Linger)
	}
}

// giveUp keeps the event with the reason, and goes on behind it.
func (n *Notifier) giveUp(s sink, seq uint64, payload []byte, reason error) error {
	if err := n.DeadLetters.add(s.name(), seq, seq, reason.Error(), payload); err != nil {
		return err
	}
	n.Metrics.dead(s.name(), 1)
	n.log.Error("an event is given up", "sink", s.name(), "event", seq, "reason", reason)
	if err := s.skip(seq); err != nil {
		return err
	}
	return n.Journal.SetCursor(journal.Pushes, s.name(), seq)
}

// backoff waits longer after each error in a row.
type backoff struct {
	n    *Notifier
	sink string
	next time.Duration
}

func (n *Notifier) newBackoff(sink string) *backoff {
	return &backoff{n: n, sink: sink, next: n.Backoff}
}

func (b *backoff) reset() { b.next = b.n.Backoff }

func (b *backoff) sleep(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	b.n.Metrics.retry(b.sink)
	b.n.log.Warn("trying again", "sink", b.sink, "in", b.next, "err", err)
	pause(ctx, b.next/2+rand.N(b.next/2+1))
	b.next = min(2*b.next, longestBackoff)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
