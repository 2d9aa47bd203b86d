package records

import (
	"context"
	"slices"
)

// FirstOnItsWay implements sink.Skippable.
func (s *Sink) FirstOnItsWay() (first uint64, err error) {
	batch := &Batch{}
	if _, err := s.outbox().Load(batch); err != nil {
		return 0, err
	}
	for _, c := range batch.Manifests {
		for _, e := range c.Events {
			if first == 0 || e.Seq < first {
				first = e.Seq
			}
		}
	}
	return first, nil
}

// SkipBatch implements sink.Skippable. Events of the same manifest are given up together.
func (s *Sink) SkipBatch(ctx context.Context, upTo uint64, reason error) (events int, err error) {
	batch := &Batch{}
	if pending, err := s.outbox().Load(batch); err != nil || !pending {
		return 0, err
	}
	for m := len(batch.Manifests) - 1; m >= 0; m-- {
		c := &batch.Manifests[m]
		if !slices.ContainsFunc(c.Events, func(e Cause) bool { return e.Seq <= upTo }) {
			continue
		}
		missing, err := s.Account.Missing(ctx, c.Writes)
		if err != nil {
			return events, err
		}
		if len(c.Writes) > 0 && len(missing) == 0 {
			continue
		}
		n := len(c.Events)
		if err := s.giveUp(ctx, batch, m, reason); err != nil {
			return events, err
		}
		events += n
	}
	return events, nil
}

// Processed implements sink.Skippable.
func (s *Sink) Processed() (func(seq uint64) bool, error) {
	batched, err := LastBatched(s.State)
	return func(seq uint64) bool { return seq <= batched }, err
}

// Rewind implements sink.Rewindable. What the sink does is decided by what storage has and by
// the ledger, so events that are handled again create only records that are missing.
func (s *Sink) Rewind(_ context.Context, to, _ uint64) error { return s.moveTo(to) }
