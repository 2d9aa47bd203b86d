package delivery

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/state"
)

// How a sink publishes
//
// A sink turns events into a batch of writes whose keys, times and bytes are fixed
// by the events. The batch goes through the sink's outbox, one key of the state:
//
//  1. put makes the batch durable, in one commit with the results of events that
//     need no writes.
//  2. The writes are sent to the account.
//  3. clear empties the outbox, in one commit with the ledger entries and results
//     that the writes stand for.
//  4. The sink's cursor in the journal moves.
//
// Crash cases:
//
//   - Before 1: the events are read again and make the same batch.
//   - Between 1 and 3, or if the answer to 2 is lost: it is not known which writes
//     were applied. Before it does anything else, the sink confirms the batch. Writes
//     whose record is in the repo are done. For the others it checks again whether
//     they are still wanted (is the repository public, the image stored?), puts the
//     batch again if that changes it, and sends what is missing. Sending one write
//     twice has no effect, since its key and bytes are the same.
//   - Between 3 and 4: the events are read again. The records sink skips events up
//     to state.RecordsBatched, the announce sink finds their posts in the history.
//
// A write that the account refuses for good is given up with its events, and the
// rest of the batch is sent.

// An Outbox holds the batch that a sink is sending.
type Outbox struct {
	db       state.Store
	key      []byte
	revision func(ctx context.Context) string // the repo's, noted by clear; "": not now
}

// NewOutbox returns the outbox with a key in the state. revision returns the repo's
// revision, which Clear notes; "": not now.
func NewOutbox(db state.Store, key []byte, revision func(ctx context.Context) string) *Outbox {
	return &Outbox{db, key, revision}
}

// Load decodes the batch into v; false if there is none.
func (o *Outbox) Load(v any) (bool, error) {
	found, err := state.GetJSON(o.db.Get, o.key, v)
	if err != nil {
		return false, fmt.Errorf("read outbox: %w", err)
	}
	return found, nil
}

// Put commits the batch v together with b.
func (o *Outbox) Put(b *state.Batch, v any) error {
	val, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	b.Set(o.key, val)
	if err := o.db.Commit(b, state.Sync); err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	return nil
}

// Clear empties the outbox together with b, and notes the revision that the repo
// has with the batch.
func (o *Outbox) Clear(ctx context.Context, b *state.Batch) error {
	b.Delete(o.key)
	if rev := o.revision(ctx); rev != "" {
		b.Set(state.AccountRevision, []byte(rev))
	}
	if err := o.db.Commit(b, state.Sync); err != nil {
		return fmt.Errorf("clear outbox: %w", err)
	}
	return nil
}

// Confirm sends the batch in the outbox again, if there is one, as far as it is still
// wanted: recheck removes what is not, and reports whether it has changed the batch.
func Confirm[B any](ctx context.Context, o *Outbox, recheck func(context.Context, *B) (changed bool, err error), send func(context.Context, *B) error) error {
	batch := new(B)
	pending, err := o.Load(batch)
	if err != nil || !pending {
		return err
	}
	changed, err := recheck(ctx, batch)
	if err != nil {
		return err
	}
	if changed {
		if err := o.Put(&state.Batch{}, batch); err != nil {
			return err
		}
	}
	return send(ctx, batch)
}
