package notifier

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/recent"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// ErrNotRetryable is returned for a dead letter of a sink whose events can't be retried.
var ErrNotRetryable = errors.New("pulls that the sink remote has given up can't be retried: the hold may have counted them")

// ErrTooLate is returned for a dead letter whose event must not have an effect any more.
var ErrTooLate = errors.New("it is too late to retry this")

// ErrUnknownSink is returned for a sink that is not configured.
var ErrUnknownSink = errors.New("no such sink is configured")

// errLetters is returned by readFor if it is not known whether an event has a dead letter.
var errLetters = errors.New("look for a dead letter")

// undecodable reports whether an error of readFor is about the event itself, for good.
func undecodable(err error) bool {
	return !errors.Is(err, event.ErrNewer) && !errors.Is(err, errLetters)
}

// pushesOf is the box with the letters of the pushes that a sink has given up.
func pushesOf(name string) deadletters.Box {
	return deadletters.Box{Sink: name, Stream: journal.Pushes}
}

// RetryLetter appends the event of a dead letter to the journal again, for its sink alone.
// The letter disappears when the sink has processed the event.
func (n *Notifier) RetryLetter(ctx context.Context, box deadletters.Box, seq uint64) error {
	if box.Stream != journal.Pushes && box.Sink != sink.Counters {
		return fmt.Errorf("%s: %w", box.Name(seq), ErrNotRetryable)
	}
	if _, runs := n.journal.Cursors(box.Stream)[box.Sink]; !runs {
		return fmt.Errorf("%w: %s", ErrUnknownSink, box.Sink)
	}
	if err := n.space(); err != nil {
		return err
	}
	if err := n.checkRetry(box, seq); err != nil {
		return err
	}
	l, err := n.dead.BeginRetry(box, seq)
	if err != nil {
		return err
	}
	payload, err := event.EncodeRetry(event.Retry{Sink: box.Sink, Letter: seq}, l.Event)
	var retry uint64
	if err == nil {
		_, order, _ := n.clock.Reserve(1)
		retry, err = n.journal.Append(ctx, box.Stream, uint64(order), payload)
	}
	if err != nil {
		// If it is in the journal nevertheless, the letter stays, and another retry has no effect.
		return errors.Join(fmt.Errorf("retry %s: %w", box.Name(seq), err), n.dead.CancelRetry(box, seq))
	}
	if e, err := event.Decode(l.Event); err == nil && box.Sink == records.Name {
		n.noteDecoded(retry, e)
	}
	return nil
}

// checkRetry returns ErrTooLate for the letter of a purge, which would remove what was pushed
// since, and for that of a push whose repository was purged since. A purge that is recorded
// after this is noticed by the sink.
func (n *Notifier) checkRetry(box deadletters.Box, seq uint64) error {
	l, err := n.dead.Get(box, seq)
	if err != nil || l.Event == nil || box.Sink == sink.Counters {
		return err // BeginRetry says what is wrong
	}
	e, err := event.Decode(l.Event)
	if err != nil {
		return nil // the sink reports it
	}
	switch e.Operation {
	case event.OpPurge:
		return fmt.Errorf("%s: %w: it would remove what was pushed after the purge; run `tidings purge` again", box.Name(seq), ErrTooLate)
	case event.OpPush:
		purged, err := n.purged.After(e.Name(), cmp.Or(e.Origin, seq))
		if err == nil && purged {
			err = fmt.Errorf("%s: %w: the repository %s was purged after the push; `tidings dead drop` removes the letter, and another push publishes the image", box.Name(seq), ErrTooLate, e.Name())
		}
		return err
	}
	return nil
}

// readFor returns an event for a sink. That is nothing for a retry of another sink or of a
// letter that is not marked any more, and for an event with a dead letter, if a crash or a
// rewind has left the sink's position before it.
func (n *Notifier) readFor(box deadletters.Box, entry journal.Entry) (event.Sequenced, error) {
	r, payload, retried := event.CutRetry(entry.Payload)
	nothing := r.Sink != box.Sink
	var err error
	switch {
	case !retried:
		payload = entry.Payload
		_, nothing, err = n.dead.Find(box, entry.Seq)
	case !nothing:
		nothing, err = n.retryEnded(box, r.Letter)
	}
	switch {
	case err != nil:
		return event.Sequenced{}, fmt.Errorf("%w: %w", errLetters, err)
	case nothing:
		return event.Nothing(entry.Seq, payload), nil
	case box.Stream == journal.Pulls:
		return recent.Decode(entry.Seq, entry.Payload)
	}
	return n.recent.Read(entry)
}

// retryEnded reports whether a letter is not being retried any more.
func (n *Notifier) retryEnded(box deadletters.Box, letter uint64) (bool, error) {
	l, err := n.dead.Get(box, letter)
	if errors.Is(err, deadletters.ErrNotFound) {
		return true, nil
	}
	return err == nil && !l.Retrying, err
}

// endRetries removes the letters of the retries among events that a sink has processed. The
// push of a retried announcement refers to the row of the retry. While its version waits for a
// cooldown or a summary, the letter stays, since the post may be refused again.
func (n *Notifier) endRetries(sink string, events []event.Sequenced) error {
	for _, e := range events {
		if e.Retry == nil {
			continue
		}
		if sink == announce.Name {
			var b state.Batch
			if err := pushrow.Put(&b, e.Retry.Letter, pushrow.AnnouncePart, pushrow.Announce{Retried: e.Seq}); err != nil {
				return err
			}
			if err := n.state.Commit(&b, state.Sync); err != nil { // keepWaitingRetry needs it after a crash
				return err
			}
			n.waitingRetries[e.Retry.Letter] = true
			continue
		}
		if err := n.dead.EndRetry(pushesOf(sink), e.Retry.Letter); err != nil {
			return err
		}
	}
	if sink == announce.Name {
		return n.endWaitingRetries()
	}
	return nil
}

// endWaitingRetries removes the letters of retried announcements that do not wait any more. It
// is called by the loop of the announce sink alone.
func (n *Notifier) endWaitingRetries() error {
	for letter := range n.waitingRetries {
		var row pushrow.Announce
		if _, err := pushrow.GetAnnounce(n.state, letter, &row); err != nil {
			return err
		}
		if row.Waiting {
			continue
		}
		if err := n.dead.EndRetry(pushesOf(announce.Name), letter); err != nil {
			return err
		}
		delete(n.waitingRetries, letter)
	}
	return nil
}

// keepWaitingRetry reports whether the retry of a letter has been processed by the announce
// sink, whose loop then ends it. It is called before the loops run.
func (n *Notifier) keepWaitingRetry(l *deadletters.Letter) (bool, error) {
	if l.Sink != announce.Name || l.Stream != journal.Pushes.String() {
		return false, nil
	}
	var row pushrow.Announce
	if _, err := pushrow.GetAnnounce(n.state, l.First, &row); err != nil {
		return false, err
	}
	if row.Waiting || row.PostURI != "" {
		n.waitingRetries[l.First] = true
		return true, nil
	}
	return false, nil
}

// cancelLostRetries removes the marks of letters whose retry is not pending in the journal,
// because a crash came before it or because the journal was restored.
func (n *Notifier) cancelLostRetries() error {
	marked, err := n.dead.Retrying()
	if err != nil || len(marked) == 0 {
		return err
	}
	for _, s := range countedStreams {
		pending := map[event.Retry]bool{}
		for name := range n.journal.Cursors(s) {
			if err := n.pendingRetries(s, name, pending); err != nil {
				return err
			}
		}
		for _, l := range marked {
			if l.Stream != s.String() || pending[event.Retry{Sink: l.Sink, Letter: l.First}] {
				continue
			}
			if kept, err := n.keepWaitingRetry(&l); kept || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			if err := n.dead.CancelRetry(deadletters.Box{Sink: l.Sink, Stream: s}, l.First); err != nil {
				return err
			}
		}
	}
	return nil
}

// pendingRetries adds the retries for a sink after its position to pending.
func (n *Notifier) pendingRetries(s journal.Stream, name string, pending map[event.Retry]bool) error {
	for after := n.position(s, name).Done; ; {
		entries, err := n.journal.Read(s, after, countEvents, countBytes)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, entry := range entries {
			if r, _, ok := event.CutRetry(entry.Payload); ok && r.Sink == name {
				pending[r] = true
			}
		}
		after = entries[len(entries)-1].Seq
	}
}
