package remote

import (
	"context"

	"github.com/tidings-dev/tidings/notifier/state"
)

// FirstOnItsWay implements sink.Skippable.
func (s *Sink) FirstOnItsWay() (uint64, error) {
	calls, err := s.readOutbox()
	if err != nil || len(calls) == 0 {
		return 0, err
	}
	return calls[0].Seq, nil
}

// SkipBatch implements sink.Skippable. A call whose answer was lost may have been applied: a
// retry of its letter is confirmed first.
func (s *Sink) SkipBatch(_ context.Context, upTo uint64, reason error) (events int, err error) {
	calls, err := s.readOutbox()
	if err != nil {
		return 0, err
	}
	left := calls
	for _, c := range calls {
		if c.Seq > upTo {
			continue
		}
		if err := s.GiveUp(c.Seq, reason); err != nil {
			return events, err
		}
		left = without(left, c.Seq)
		events++
	}
	if events == 0 {
		return 0, nil
	}
	return events, s.putOutbox(&state.Batch{}, left)
}

// Processed implements sink.Skippable.
func (s *Sink) Processed() (func(seq uint64) bool, error) {
	taken, err := LastTaken(s.State)
	return func(seq uint64) bool { return seq <= taken }, err
}
