package records

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/forgotten"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// Name is the name of the sink.
const Name = "records"

// A Sink writes one layer record for each layer of each manifest of a public
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
// commit that clears the outbox changes the ledger, and the usage with it.
//
// A push whose owner is a handle that is not resolved is parked in the commit that moves
// the sink past it, see package parked. Until then storage decides as for others: when
// the push is repeated, it has no effect if its image was deleted meanwhile.
//
// The records of an owner who asks for it are deleted in several batches, see
// forget_owner.go; so are those of a repository that is purged, see purge.go.
type Sink struct {
	sink.Deps
	Owners
	ledger      *ledger.Ledger
	usage       *usage.Table
	forgotten   *forgotten.Store
	commitUsage CommitUsage
	progress    *sink.Signal

	forgetting position
	purging    purging
}

// Owners is what the sink needs for owners that are handles.
type Owners struct {
	// Resolved returns the DID of a handle if it is known, without waiting.
	Resolved func(handle string) (did string, known bool)
	Parked   *parked.Store
	Now      func() time.Time
	// Forgotten is called after all records of an owner who asked for it are deleted.
	Forgotten func()
}

// CommitUsage calls commit, which makes changes of the usage.
type CommitUsage func(changes usage.Changes, commit func() error) error

// New returns the sink. It keeps the keys of its records in l and their layers in u, which it
// changes with commitUsage, and sends on progress when it has processed events.
func New(deps sink.Deps, owners Owners, l *ledger.Ledger, u *usage.Table, commitUsage CommitUsage, progress *sink.Signal) *Sink {
	return &Sink{
		Deps: deps, Owners: owners, ledger: l, usage: u, forgotten: forgotten.New(deps.State), commitUsage: commitUsage, progress: progress,
	}
}

// Name implements sink.Sink.
func (s *Sink) Name() string { return Name }

// Skip notes that an event was given up.
func (s *Sink) Skip(seq uint64) error {
	batched, err := LastBatched(s.State)
	if err != nil || seq <= batched {
		return err
	}
	return s.moveTo(seq)
}

func (s *Sink) moveTo(seq uint64) error {
	var b state.Batch
	PutLastBatched(&b, seq)
	return s.State.Commit(&b, state.Sync)
}

func (s *Sink) outbox() *delivery.Outbox {
	return delivery.NewOutbox(s.State, state.RecordsOutbox, s.Revision)
}

// Confirm sends the batch in the outbox, without what may not be published any more.
func (s *Sink) Confirm(ctx context.Context) error {
	return delivery.Confirm(ctx, s.outbox(), s.recheckBatch, func(ctx context.Context, batch *Batch) error {
		return s.send(ctx, batch, false)
	})
}

// Handle processes all events.
func (s *Sink) Handle(ctx context.Context, events []event.Sequenced) (int, time.Time, error) {
	if err := s.Confirm(ctx); err != nil {
		return 0, time.Time{}, err
	}
	s.endForgetting()
	batched, err := LastBatched(s.State)
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
		if err := ctx.Err(); err != nil {
			return done, time.Time{}, err
		}
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
func (s *Sink) handleBatch(ctx context.Context, events []event.Sequenced, stored []bool) (int, error) {
	build, done, err := s.build(events, stored)
	if err == nil {
		err = s.commit(build, events[:done])
	}
	if err = s.Parked.Committed(err); err != nil {
		return 0, err
	}
	s.forgetting, s.purging = build.forgetting, build.purging
	if len(build.batch.Manifests) > 0 {
		err = s.send(ctx, build.batch, true)
	}
	if err == nil {
		s.endForgetting()
	}
	return done, err
}

// commit commits a batch and what is decided about its events.
func (s *Sink) commit(build *builder, events []event.Sequenced) error {
	if err := s.recordDecided(&build.rows, build, events); err != nil {
		return err
	}
	if len(build.batch.Manifests) == 0 {
		return s.State.Commit(&build.rows, state.Sync)
	}
	return s.outbox().Put(&build.rows, build.batch)
}

// recordDecided adds to b the sequence number of the last event in the batch, and the
// results of pushes that have no records.
func (s *Sink) recordDecided(b *state.Batch, build *builder, events []event.Sequenced) error {
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
		if e.Operation != event.OpPush || sent[e.Seq] || build.parked[e.Seq] {
			continue
		}
		if err := s.putResult(b, e.Result(), pushrow.Records{Reason: build.reasons[e.Seq]}); err != nil {
			return err
		}
	}
	PutLastBatched(b, events[len(events)-1].Seq)
	return nil
}

// putResult adds the result of a push to b. One that has created records stays when the push
// is handled again and creates none.
func (s *Sink) putResult(b *state.Batch, seq uint64, result pushrow.Records) error {
	var before pushrow.Records
	if result.Created == 0 {
		if _, err := pushrow.Get(s.State, seq, pushrow.RecordsPart, &before); err != nil {
			return err
		}
	}
	if before.Created > 0 {
		return nil
	}
	return pushrow.Put(b, seq, pushrow.RecordsPart, result)
}

// LastBatched returns the sequence number of the last event that a batch covers.
func LastBatched(db state.Store) (uint64, error) {
	last, err := state.Number(db.Get(state.RecordsBatched))
	if err != nil {
		return 0, fmt.Errorf("read the last event of the records sink: %w", err)
	}
	return last, nil
}

// PutLastBatched adds to b what LastBatched returns.
func PutLastBatched(b *state.Batch, seq uint64) {
	b.SetNumber(state.RecordsBatched, seq)
}

// affects reports whether an event may change the records of its manifest: a push
// of a public repository, and a push that is private now, whose records may have to
// go. A delete may do so in any repository, since the records have to go also when
// the repository is not public any more.
func (s *Sink) affects(e *event.Sequenced) bool {
	switch e.Operation {
	case event.OpPush:
		if e.Private() {
			return true
		}
		return (e.UserDID != "" || e.OwnerHandle != "") && s.Public(e.Name()) && (e.Unreadable != nil || len(e.Plan.Records) > 0)
	case event.OpDelete, event.OpForget, event.OpDisown:
		return e.ManifestDigest != ""
	}
	return false
}
