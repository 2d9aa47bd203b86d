package records

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// recheckBatch checks again the changes whose creates are missing in the repo:
// whether the repositories of their pushes are public, were not purged since, and have the
// manifest. It reports whether it has changed the batch.
func (s *Sink) recheckBatch(ctx context.Context, batch *Batch) (changed bool, err error) {
	for m := len(batch.Manifests) - 1; m >= 0; m-- {
		c := &batch.Manifests[m]
		if !c.creates() || c.After == nil {
			continue
		}
		missing, err := s.Account.Missing(ctx, c.Writes)
		if errors.Is(err, delivery.ErrConflict) {
			continue // send gives it up
		}
		if err != nil {
			return changed, err
		}
		if len(missing) == 0 {
			continue
		}
		after, reason, err := s.recheck(ctx, c)
		if err != nil {
			return changed, err
		}
		if len(after.Repositories) == len(c.After.Repositories) {
			continue
		}
		changed = true
		if len(after.Repositories) > 0 {
			c.After = &after
			continue
		}
		var b state.Batch
		for _, e := range c.Events {
			if err := pushrow.Put(&b, e.result(), pushrow.RecordsPart, pushrow.Records{Reason: reason}); err != nil {
				return changed, err
			}
		}
		if err := s.State.Commit(&b, state.NoSync); err != nil {
			return changed, err
		}
		s.Log.Info("records are not written: "+reason, "digest", c.Digest, "events", len(c.Events))
		if err := s.withdraw(ctx, batch, m); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// recheck returns the change's entry with those of its repositories for which recheckBatch
// has no objection, and the reason why the others are left out.
func (s *Sink) recheck(ctx context.Context, c *Change) (after ledger.Entry, reason string, err error) {
	after = *c.After
	for _, e := range c.Events {
		if !e.Push || !after.In(e.Repository) {
			continue
		}
		private, err := s.Private.Since(e.Repository, c.Digest, e.Seq)
		if err != nil {
			return after, reason, err
		}
		if private || !s.Public(e.Repository) {
			after, reason = after.Without(e.Repository), "not public any more"
			continue
		}
		purged, err := s.Purged.After(e.Repository, e.result())
		if err != nil {
			return after, reason, err
		}
		if purged {
			var b state.Batch
			s.Purged.MarkImage(&b, e.Repository, c.Digest)
			if err := s.State.Commit(&b, state.NoSync); err != nil { // durable with the changed batch
				return after, reason, err
			}
			after, reason = after.Without(e.Repository), reasonPurged
			continue
		}
		if !e.Local || s.Storage == nil {
			continue
		}
		has, err := s.Storage.Has(ctx, e.Repository, c.Digest)
		if err != nil && !errors.Is(err, stored.ErrUnreadable) {
			return after, reason, err
		}
		if err == nil && !has {
			after, reason = after.Without(e.Repository), reasonGone
		}
	}
	return after, reason, nil
}
