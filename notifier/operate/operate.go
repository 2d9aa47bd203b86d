package operate

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// How events are skipped and handled again
//
// To skip an event is to write its dead letter: a sink passes over an event that has one, so
// a crash leaves nothing half done. Events that are part of the batch in the sink's outbox
// are taken out of it first, unless they are written already.
//
// To rewind a sink is to move its cursor in the journal back, and then its own position in
// the state. After a crash in between, the sink passes over the events again and nothing
// has happened. Events with a dead letter are passed over here, too.
//
// Both are called between two steps of the sink.

// MaxSkipped is how many events are skipped at once.
const MaxSkipped = 10_000

var (
	// ErrNothingPending is returned by Skip if the sink has processed all events.
	ErrNothingPending = errors.New("no event is pending")
	// ErrPosition is returned for a position that is not possible.
	ErrPosition = errors.New("invalid position")
	// ErrNotRewindable is returned for a sink that would have an effect twice.
	ErrNotRewindable = errors.New("only the sinks records and announce can be rewound, which write nothing twice; others would count or report each event again")

	errSkipped = errors.New("skipped by operator")
)

// An Operator skips and rewinds the events of a journal.
type Operator struct {
	Journal *journal.Journal
	Letters *deadletters.Store
}

// A Reader is the reader of a stream whose events are skipped.
type Reader struct {
	deadletters.Box
	Position uint64    // the last event that it has processed
	Sink     sink.Sink // nil: it has no outbox
}

// Skipped are the events that Skip has given up.
type Skipped struct {
	First  uint64 `json:"first"` // sequence numbers
	Last   uint64 `json:"last"`
	Events int    `json:"events"` // without those that were processed already
}

// Skip gives up the pending events of a reader up to a sequence number; 0 stands for the first
// of them. The events become dead letters.
func (o *Operator) Skip(ctx context.Context, r Reader, to uint64) (Skipped, error) {
	if err := o.CheckSkip(r, to); err != nil {
		return Skipped{}, err
	}
	s, ok := r.Sink.(sink.Skippable)
	if !ok {
		return o.skip(r, to, func(uint64) bool { return false })
	}
	withdrawn, err := o.withdraw(ctx, s, to)
	if err != nil || to == 0 && withdrawn.Events > 0 {
		return withdrawn, err
	}
	processed, err := s.Processed()
	if err != nil {
		return withdrawn, err
	}
	skipped, err := o.skip(r, to, processed)
	skipped.Events += withdrawn.Events
	return skipped, err
}

// CheckSkip returns the error of Skip if there are no such events.
func (o *Operator) CheckSkip(r Reader, to uint64) error {
	last := o.Journal.Status(r.Stream).Last
	switch {
	case r.Position >= last:
		return fmt.Errorf("%w at the sink %s of %s", ErrNothingPending, r.Box.Sink, r.Stream)
	case to != 0 && (to <= r.Position || to > last):
		return fmt.Errorf("%w: the pending events of %s of %s are %d to %d", ErrPosition, r.Box.Sink, r.Stream, r.Position+1, last)
	case to > r.Position+MaxSkipped:
		return fmt.Errorf("%w: at most %d events are skipped at once, up to %d", ErrPosition, MaxSkipped, r.Position+MaxSkipped)
	}
	return nil
}

// withdraw takes the events up to a sequence number out of the batch in the outbox of a
// sink, 0 for the first of the batch.
func (o *Operator) withdraw(ctx context.Context, s sink.Skippable, to uint64) (Skipped, error) {
	if to == 0 {
		var err error
		if to, err = s.FirstOnItsWay(); err != nil || to == 0 {
			return Skipped{}, err
		}
	}
	n, err := s.SkipBatch(ctx, to, errSkipped)
	if err != nil {
		return Skipped{}, fmt.Errorf("take events out of the batch that is on its way: %w", err)
	}
	return Skipped{First: to, Last: to, Events: n}, nil
}

// skip writes the letters of the events after the position of a reader up to a sequence
// number, 0 for the first that is neither processed nor has a letter.
func (o *Operator) skip(r Reader, to uint64, processed func(uint64) bool) (Skipped, error) {
	skipped := Skipped{First: r.Position + 1, Last: max(to, r.Position+1)}
	for after := r.Position; to == 0 || after < to; {
		entries, err := o.Journal.Read(r.Stream, after, 500, 4<<20)
		if err != nil || len(entries) == 0 {
			return skipped, err
		}
		var letters []journal.Entry
		for _, e := range entries {
			after = e.Seq
			if to != 0 && e.Seq > to || to == 0 && len(letters) > 0 {
				break
			}
			if letter, ok, err := o.letter(r.Box, e, processed); err != nil {
				return skipped, err
			} else if ok {
				letters = append(letters, letter)
				skipped.Last = max(skipped.Last, e.Seq)
			}
		}
		if len(letters) == 0 {
			continue
		}
		if err := o.Letters.AddEach(r.Box, errSkipped.Error(), letters); err != nil {
			return skipped, err
		}
		skipped.Events += len(letters)
		if to == 0 {
			skipped.First = skipped.Last
			return skipped, nil
		}
	}
	return skipped, nil
}

// letter returns the number and the event of an event's letter; false if the event is processed
// or has one, or is of another sink.
func (o *Operator) letter(box deadletters.Box, e journal.Entry, processed func(uint64) bool) (journal.Entry, bool, error) {
	if processed(e.Seq) {
		return e, false, nil
	}
	r, retried, ok := event.CutRetry(e.Payload)
	if !ok {
		_, has, err := o.Letters.Find(box, e.Seq)
		return e, !has, err
	}
	if r.Sink != box.Sink {
		return e, false, nil
	}
	l, err := o.Letters.Get(box, r.Letter)
	if errors.Is(err, deadletters.ErrNotFound) {
		return e, false, nil
	}
	return journal.Entry{Seq: r.Letter, Payload: retried}, err == nil && l.Retrying, err
}

// Rewound is what Rewind has done.
type Rewound struct {
	Position uint64 `json:"position"` // the sink continues after this event
	Events   uint64 `json:"events"`   // that it handles again, at most
}

// Rewind lets a sink handle the events after a sequence number again.
func (o *Operator) Rewind(ctx context.Context, r Reader, to uint64) (Rewound, error) {
	s, err := rewindable(r, to)
	if err != nil {
		return Rewound{}, err
	}
	if err := r.Sink.Confirm(ctx); err != nil {
		return Rewound{}, fmt.Errorf("finish the batch that is on its way: %w", err)
	}
	if err := o.Journal.Rewind(r.Stream, r.Box.Sink, to); err != nil {
		return Rewound{}, err
	}
	return Rewound{to, r.Position - to}, s.Rewind(ctx, to, r.Position)
}

// CheckRewind returns the error of Rewind if the sink cannot be rewound, or is not beyond the
// sequence number.
func CheckRewind(r Reader, to uint64) error {
	_, err := rewindable(r, to)
	return err
}

func rewindable(r Reader, to uint64) (sink.Rewindable, error) {
	s, ok := r.Sink.(sink.Rewindable)
	if !ok || r.Stream != journal.Pushes {
		return nil, ErrNotRewindable
	}
	if to >= r.Position {
		return nil, fmt.Errorf("%w: the sink %s is at %d already", ErrPosition, r.Box.Sink, r.Position)
	}
	return s, nil
}

// Before returns the sequence number of the last event of a stream that was recorded before a
// time, by the clock of the events; 0 if the journal has none.
func (o *Operator) Before(s journal.Stream, t time.Time) uint64 {
	status := o.Journal.Status(s)
	first := status.First - 1
	n := sort.Search(int(status.Last-first), func(i int) bool {
		order, ok := o.Journal.OrderAfter(s, first+uint64(i))
		return !ok || int64(order) >= t.UnixMicro()
	})
	return first + uint64(n)
}
