package notifier

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
)

// ErrNotRetryable is returned for a dead letter of a sink whose events can't be retried.
var ErrNotRetryable = errors.New("only events that the sinks records and announce have given up can be retried")

// RetryLetter appends the event of a dead letter to the journal again, for its sink alone.
// The letter disappears when the sink has processed the event.
func (n *Notifier) RetryLetter(ctx context.Context, box deadletters.Box, seq uint64) error {
	if box.Stream != journal.Pushes || box.Sink != records.Name && box.Sink != announce.Name {
		return ErrNotRetryable
	}
	if _, runs := n.journal.Cursors(journal.Pushes)[box.Sink]; !runs {
		return fmt.Errorf("%w, and the sink %s is not configured", ErrNotRetryable, box.Sink)
	}
	if err := n.space(); err != nil {
		return err
	}
	l, err := n.dead.BeginRetry(box, seq)
	if err != nil {
		return err
	}
	payload, err := event.EncodeRetry(event.Retry{Sink: box.Sink, Letter: seq}, l.Event)
	if err == nil {
		_, order, _ := n.clock.Reserve(1)
		_, err = n.journal.Append(ctx, journal.Pushes, uint64(order), payload)
	}
	if err != nil {
		// If it is in the journal nevertheless, the letter stays, and another retry has no effect.
		return errors.Join(fmt.Errorf("retry %s/%d: %w", box.Sink, seq, err), n.dead.CancelRetry(box, seq))
	}
	return nil
}

// readFor returns an event of the push stream for a sink.
func (n *Notifier) readFor(sink string, entry journal.Entry) (event.Sequenced, error) {
	if r, retried, ok := event.CutRetry(entry.Payload); ok && r.Sink != sink {
		return event.Nothing(entry.Seq, retried), nil
	}
	return n.recent.Read(entry)
}

// endRetries removes the letters of the retries among events that a sink has processed.
func (n *Notifier) endRetries(sink string, events []event.Sequenced) error {
	for _, e := range events {
		if e.Retry == nil {
			continue
		}
		if err := n.dead.EndRetry(deadletters.Box{Sink: sink, Stream: journal.Pushes}, e.Retry.Letter); err != nil {
			return err
		}
	}
	return nil
}

// cancelLostRetries removes the marks of letters whose retry is not pending in the journal,
// because a crash came before it or because the journal was restored.
func (n *Notifier) cancelLostRetries() error {
	marked, err := n.dead.Retrying()
	if err != nil || len(marked) == 0 {
		return err
	}
	pending := map[event.Retry]bool{}
	for sink, cursor := range n.journal.Cursors(journal.Pushes) {
		if err := n.pendingRetries(sink, cursor, pending); err != nil {
			return err
		}
	}
	for _, l := range marked {
		if pending[event.Retry{Sink: l.Sink, Letter: l.First}] {
			continue
		}
		if err := n.dead.CancelRetry(deadletters.Box{Sink: l.Sink, Stream: journal.Pushes}, l.First); err != nil {
			return err
		}
	}
	return nil
}

// pendingRetries adds the retries for a sink after its cursor to pending.
func (n *Notifier) pendingRetries(sink string, after uint64, pending map[event.Retry]bool) error {
	for {
		entries, err := n.journal.Read(journal.Pushes, after, countEvents, countBytes)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, entry := range entries {
			if r, _, ok := event.CutRetry(entry.Payload); ok && r.Sink == sink {
				pending[r] = true
			}
		}
		after = entries[len(entries)-1].Seq
	}
}
