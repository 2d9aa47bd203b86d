package records

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// send applies the writes of a batch and finishes it. A write that is refused for good
// takes its manifest out of the batch, and the rest is applied.
func (s *Sink) send(ctx context.Context, batch *Batch, fresh bool) error {
	for {
		err := s.Account.Deliver(ctx, batch.writes(), fresh)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) {
			if err != nil {
				return err
			}
			return s.finish(ctx, batch)
		}
		if err := s.drop(ctx, batch, invalid); err != nil {
			return err
		}
		fresh = false
	}
}

// finish changes the ledger and clears the outbox. The result of the first push of
// each manifest has the number of records.
func (s *Sink) finish(ctx context.Context, batch *Batch) error {
	var b state.Batch
	changes := usage.Changes{}
	for _, c := range batch.Manifests {
		layers, err := s.apply(&b, &c)
		if err != nil {
			return err
		}
		changes[c.Owner] = append(changes[c.Owner], layers...)
		var result pushrow.Records
		if c.creates() && len(c.Events) > 0 {
			result.Created = len(c.Writes)
			if c.Odd != nil {
				result.Reason = c.Odd.String()
				s.Metrics.Odd(c.Odd)
			}
		}
		for _, e := range c.Events {
			if !e.Push {
				continue
			}
			if err := s.putResult(&b, e.result(), result); err != nil {
				return err
			}
			result.Created = 0
		}
	}
	return s.commitUsage(changes, func() error { return s.outbox().Clear(ctx, &b) })
}

// apply changes the ledger and the usage. It returns the layers that start or stop counting.
func (s *Sink) apply(b *state.Batch, c *Change) ([]usage.Layer, error) {
	if c.After == nil {
		s.ledger.Delete(b, c.Owner, c.Digest)
		return s.usage.Remove(b, c.Owner, c.Digest)
	}
	s.ledger.Put(b, c.Owner, c.Digest, *c.After)
	if !c.creates() {
		return nil, nil
	}
	return s.usage.Add(b, c.Owner, c.Digest, c.layers())
}

// drop gives up the change that a *repo.WriteError is about.
func (s *Sink) drop(ctx context.Context, batch *Batch, invalid *repo.WriteError) error {
	m := batch.manifestOf(invalid.Index)
	if m < 0 {
		return invalid
	}
	return s.giveUp(ctx, batch, m, invalid)
}

// giveUp gives up the change m of a batch with its events.
func (s *Sink) giveUp(ctx context.Context, batch *Batch, m int, reason error) error {
	var b state.Batch
	for _, e := range batch.Manifests[m].Events {
		if err := s.GiveUp(e.Seq, reason); err != nil {
			return err
		}
		if err := pushrow.Put(&b, e.result(), pushrow.RecordsPart, pushrow.Records{Reason: reason.Error()}); err != nil {
			return err
		}
	}
	if err := s.withdraw(ctx, batch, m); err != nil {
		return err
	}
	return s.outbox().Put(&b, batch)
}

// withdraw takes a change out of the batch. If some of its creates are applied,
// the change becomes their deletes.
func (s *Sink) withdraw(ctx context.Context, batch *Batch, m int) error {
	c := &batch.Manifests[m]
	deletes, err := s.Account.Undo(ctx, c.Writes)
	if err != nil {
		return err
	}
	if len(deletes) == 0 {
		batch.remove(m)
		return nil
	}
	c.Events, c.After, c.Writes = nil, c.Before, deletes
	return nil
}
