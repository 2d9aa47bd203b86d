package notifier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// recordSink writes one layer record for each layer of each manifest of a public
// repository, and deletes the records with the manifest.
//
// An event says that a repository may have a manifest now, or not any more. What
// the sink does is decided by what storage has when it handles the event. So pushes
// and deletes of one digest may reach the journal in any order: each change of
// storage is followed by an event, and the last event is handled after the last
// change.
//
// The sink sends its writes through the outbox. The commit that puts a batch there
// also moves state.RecordsBatched, the sequence number of the last event that the
// batch covers; an event up to this number is not put into a batch again. The
// commit that clears the outbox changes the ledger.
type recordSink struct {
	sink.Deps
	ledger   *ledger.Ledger
	progress *sink.Signal
}

const recordSinkName = "records"

func (s *recordSink) Name() string { return recordSinkName }

// skip notes that an event was given up.
func (s *recordSink) Skip(seq uint64) error {
	var b state.Batch
	putLastBatched(&b, seq)
	return s.State.Commit(&b, state.Sync)
}

func (s *recordSink) outbox() *delivery.Outbox {
	return delivery.NewOutbox(s.State, state.RecordsOutbox, s.Revision)
}

func (s *recordSink) Confirm(ctx context.Context) error {
	var batch recordBatch
	ok, err := s.outbox().Load(&batch)
	if err != nil || !ok {
		return err
	}
	changed, err := s.recheckBatch(ctx, &batch)
	if err != nil {
		return err
	}
	if changed {
		if err := s.outbox().Put(&state.Batch{}, &batch); err != nil {
			return err
		}
	}
	return s.send(ctx, &batch, false)
}

func (s *recordSink) Handle(ctx context.Context, events []event.Sequenced) (int, time.Time, error) {
	if err := s.Confirm(ctx); err != nil {
		return 0, time.Time{}, err
	}
	batched, err := lastBatched(s.State)
	if err != nil {
		return 0, time.Time{}, err
	}
	done := 0
	for done < len(events) && events[done].Seq <= batched {
		done++
	}
	if done == len(events) {
		return done, time.Time{}, nil
	}
	stored, err := s.Storage.Present(ctx, events[done:], s.affects)
	if err != nil {
		return done, time.Time{}, err
	}
	for len(stored) > 0 {
		n, err := s.handleBatch(ctx, events[done:], stored)
		if err != nil {
			return done, time.Time{}, err
		}
		done, stored = done+n, stored[n:]
		s.progress.Send()
	}
	return done, time.Time{}, nil
}

// handleBatch handles the first of the events, as many as fit into one commit.
// stored reports for the first of them whether their manifest is in storage.
func (s *recordSink) handleBatch(ctx context.Context, events []event.Sequenced, stored []bool) (int, error) {
	build, done, err := s.build(events, stored)
	if err != nil {
		return 0, err
	}
	var b state.Batch
	if err := s.recordDecided(&b, build, events[:done]); err != nil {
		return 0, err
	}
	if len(build.batch.Manifests) == 0 {
		return done, s.State.Commit(&b, state.Sync)
	}
	if err := s.outbox().Put(&b, build.batch); err != nil {
		return 0, err
	}
	return done, s.send(ctx, build.batch, true)
}

// recordDecided adds to b the sequence number of the last event in the batch, and the
// results of pushes that have no records.
func (s *recordSink) recordDecided(b *state.Batch, build *batchBuilder, events []event.Sequenced) error {
	if len(events) == 0 {
		return nil
	}
	sent := map[uint64]bool{}
	for _, m := range build.batch.Manifests {
		for _, e := range m.Events {
			sent[e.Seq] = true
		}
	}
	for _, e := range events {
		if e.Operation != event.OpPush || sent[e.Seq] {
			continue
		}
		if err := pushrow.Put(b, e.Seq, pushrow.RecordsPart, pushrow.Records{Reason: build.reasons[e.Seq]}); err != nil {
			return err
		}
	}
	putLastBatched(b, events[len(events)-1].Seq)
	return nil
}

// lastBatched is the sequence number of the last event that a batch covers.
func lastBatched(db state.Store) (uint64, error) {
	val, err := db.Get(state.RecordsBatched)
	if errors.Is(err, state.ErrNotFound) {
		return 0, nil
	}
	if err == nil && len(val) != 8 {
		err = errors.New("damaged value")
	}
	if err != nil {
		return 0, fmt.Errorf("read the last event of the records sink: %w", err)
	}
	return binary.BigEndian.Uint64(val), nil
}

func putLastBatched(b *state.Batch, seq uint64) {
	b.Set(state.RecordsBatched, binary.BigEndian.AppendUint64(nil, seq))
}

// affects reports whether an event may change the records of its manifest: a push
// of a public repository, and a push that is private now, whose records may have to
// go. A delete may do so in any repository, since the records have to go also when
// the repository is not public any more.
func (s *recordSink) affects(e *event.Sequenced) bool {
	switch e.Operation {
	case event.OpPush:
		if e.Private() {
			return true
		}
		return e.UserDID != "" && s.Public(e.Name()) && (e.Unreadable != nil || len(e.Plan.Records) > 0)
	case event.OpDelete, event.OpForget:
		return e.ManifestDigest != ""
	}
	return false
}

// send applies the writes of a batch and finishes it. A write that is refused for good
// takes its manifest out of the batch, and the rest is applied.
func (s *recordSink) send(ctx context.Context, batch *recordBatch, fresh bool) error {
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
func (s *recordSink) finish(ctx context.Context, batch *recordBatch) error {
	var b state.Batch
	for _, c := range batch.Manifests {
		if c.After == nil {
			s.ledger.Delete(&b, c.Owner, c.Digest)
		} else {
			s.ledger.Put(&b, c.Owner, c.Digest, *c.After)
		}
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
			if err := pushrow.Put(&b, e.Seq, pushrow.RecordsPart, result); err != nil {
				return err
			}
			result.Created = 0
		}
	}
	return s.outbox().Clear(ctx, &b)
}

// drop gives up the change that a *repo.WriteError is about.
func (s *recordSink) drop(ctx context.Context, batch *recordBatch, invalid *repo.WriteError) error {
	m := batch.manifestOf(invalid.Index)
	if m < 0 {
		return invalid
	}
	var b state.Batch
	for _, e := range batch.Manifests[m].Events {
		if err := s.GiveUp(e.Seq, invalid); err != nil {
			return err
		}
		if err := pushrow.Put(&b, e.Seq, pushrow.RecordsPart, pushrow.Records{Reason: invalid.Error()}); err != nil {
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
func (s *recordSink) withdraw(ctx context.Context, batch *recordBatch, m int) error {
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

// recheckBatch checks again the changes whose creates are missing in the repo:
// whether the repositories of their pushes are public and have the manifest. It
// reports whether it has changed the batch.
func (s *recordSink) recheckBatch(ctx context.Context, batch *recordBatch) (changed bool, err error) {
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
			if err := pushrow.Put(&b, e.Seq, pushrow.RecordsPart, pushrow.Records{Reason: reason}); err != nil {
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

// recheck returns the change's entry with those of its repositories that are public
// and have the manifest, and the reason why the others are left out.
func (s *recordSink) recheck(ctx context.Context, c *recordChange) (after ledger.Entry, reason string, err error) {
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
		if !e.Local || s.Storage == nil {
			continue
		}
		has, err := s.Storage.Has(ctx, e.Repository, c.Digest)
		if err != nil && !errors.Is(err, stored.ErrUnreadable) {
			return after, reason, err
		}
		if err == nil && !has {
			after, reason = after.Without(e.Repository), "not in storage any more"
		}
	}
	return after, reason, nil
}
