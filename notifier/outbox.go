package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// maxWrites is how many writes one applyWrites call may hold.
const maxWrites = 200

// An outbox holds what a sink is about to send, under one key of the
// notifier's store. What is in it was durable before any of it was sent, so
// that after a crash or a lost answer the very same bytes are settled: read
// back, and sent again if they are not there.
type outbox struct {
	n   *Notifier
	key []byte
}

// load fills v with what is on its way, false if nothing is.
func (o *outbox) load(v any) (bool, error) {
	val, closer, err := o.n.State.Get(o.key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read what is on its way: %w", err)
	}
	defer closer.Close()
	if err := json.Unmarshal(val, v); err != nil {
		return false, fmt.Errorf("read what is on its way: %w", err)
	}
	return true, nil
}

// put makes v durable, together with what else is in the batch.
func (o *outbox) put(b *pebble.Batch, v any) error {
	val, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write what is on its way: %w", err)
	}
	if err := b.Set(o.key, val, nil); err != nil {
		return err
	}
	if err := o.n.State.Commit(b, pebble.Sync); err != nil {
		return fmt.Errorf("write what is on its way: %w", err)
	}
	return nil
}

// clear empties the outbox in the batch that notes what was done.
func (o *outbox) clear(b *pebble.Batch) error {
	if err := b.Delete(o.key, nil); err != nil {
		return err
	}
	if err := o.n.State.Commit(b, pebble.Sync); err != nil {
		return fmt.Errorf("note what was sent: %w", err)
	}
	return nil
}

// errDifferent says that a key of ours holds something we did not write.
var errDifferent = errors.New("the repository has another record under this key")

// deliver makes the writes, in calls of at most maxWrites. Calls that were made
// by an earlier try are found by reading back the first write of each, for a
// call is made whole or not at all. The index of a *repo.WriteError counts in
// writes.
func (n *Notifier) deliver(ctx context.Context, writes []repo.Write) error {
	for from := 0; from < len(writes); from += maxWrites {
		part := writes[from:min(from+maxWrites, len(writes))]
		made, err := n.made(part[0])
		if err != nil {
			return shifted(err, from)
		}
		if made {
			continue
		}
		if _, err := n.Publisher.Apply(ctx, part, nil); err != nil {
			return shifted(err, from)
		}
	}
	return nil
}

// made reports whether a write has been made. Another value than ours is an
// error.
func (n *Notifier) made(w repo.Write) (bool, error) {
	got, _, err := n.Publisher.Get(w.Collection, w.RKey)
	switch {
	case errors.Is(err, repo.ErrNotFound):
		return w.Action == repo.Delete, nil
	case err != nil:
		return false, fmt.Errorf("read back: %w", err)
	case w.Action == repo.Delete:
		return false, nil
	case got == repo.CIDOf(w.Record):
		return true, nil
	}
	return false, &repo.WriteError{Path: w.Collection + "/" + w.RKey, Err: errDifferent}
}

func shifted(err error, by int) error {
	var at *repo.WriteError
	if errors.As(err, &at) {
		return &repo.WriteError{Index: at.Index + by, Path: at.Path, Err: at.Err}
	}
	return err
}
