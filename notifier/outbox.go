package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/state"
)

// maxWrites is how many writes one applyWrites call may hold.
const maxWrites = 200

// An outbox holds what a sink is about to send, under one key of the
// notifier's store. What is in it was durable before any of it was sent. After
// a crash or a lost answer it is settled first and alone: each write is read
// back, what is not made is looked at again (is the repository still public, the
// image still there?), and sent.
type outbox struct {
	n   *Notifier
	key []byte
}

// load fills v with what is on its way, false if nothing is.
func (o *outbox) load(v any) (bool, error) {
	val, err := o.n.State.Get(o.key)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(val, v)
	}
	if err != nil {
		return false, fmt.Errorf("read outbox: %w", err)
	}
	return true, nil
}

// put makes v durable, together with what else is in the batch.
func (o *outbox) put(b *state.Batch, v any) error {
	val, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	b.Set(o.key, val)
	if err := o.n.State.Commit(b, state.Sync); err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	return nil
}

// clear empties the outbox in the batch that notes what was done. Before the
// stores are known to belong together, the account's revision is not noted, for
// it is looked at for that.
func (o *outbox) clear(b *state.Batch) error {
	b.Delete(o.key)
	if o.n.proven.Load() {
		b.Set(revKey, []byte(o.n.Publisher.Head().Rev))
	}
	if err := o.n.State.Commit(b, state.Sync); err != nil {
		return fmt.Errorf("note what was sent: %w", err)
	}
	return nil
}

// errDifferent says that a key of ours holds something we did not write.
var errDifferent = errors.New("the repository has another record under this key")

// deliver makes the writes, in calls of at most maxWrites. Unless they are sent
// for the first time, each is read back before, and those that are made are not
// sent again. The index of a *repo.WriteError counts in writes; it points at a
// write that can never be made.
func (n *Notifier) deliver(ctx context.Context, writes []repo.Write, first bool) error {
	for from := 0; from < len(writes); from += maxWrites {
		part := writes[from:min(from+maxWrites, len(writes))]
		if err := n.deliverPart(ctx, part, first); err != nil {
			var at *repo.WriteError
			if errors.As(err, &at) {
				return &repo.WriteError{Index: at.Index + from, Path: at.Path, Err: at.Err}
			}
			return err
		}
	}
	return nil
}

func (n *Notifier) deliverPart(ctx context.Context, part []repo.Write, first bool) error {
	left := make([]int, len(part)) // indexes in part
	for i := range left {
		left[i] = i
	}
	if !first {
		var err error
		if left, err = n.unmade(part); err != nil {
			return err
		}
	}
	for len(left) > 0 {
		writes := make([]repo.Write, len(left))
		for k, i := range left {
			writes[k] = part[i]
		}
		_, err := n.Publisher.Apply(ctx, writes, nil)
		var at *repo.WriteError
		if !errors.As(err, &at) || at.Index < 0 || at.Index >= len(left) {
			return err
		}
		// Nothing of the call was made. A write that needs not be made is left
		// out, and the others are.
		still, unread := n.unmade(part)
		if unread != nil {
			return unread
		}
		if len(still) >= len(left) {
			return &repo.WriteError{Index: left[at.Index], Path: at.Path, Err: at.Err}
		}
		left = still
	}
	return nil
}

// unmade returns the indexes of the writes that are not made yet.
func (n *Notifier) unmade(writes []repo.Write) ([]int, error) {
	var left []int
	for i, w := range writes {
		made, err := n.made(w)
		if errors.Is(err, errDifferent) {
			return nil, &repo.WriteError{Index: i, Path: w.Collection + "/" + w.RKey, Err: errDifferent}
		}
		if err != nil {
			return nil, err
		}
		if !made {
			left = append(left, i)
		}
	}
	return left, nil
}

// made reports whether a write has been made; a delete of a record that is not
// there has. Another record than ours under the key of a create is
// errDifferent.
func (n *Notifier) made(w repo.Write) (bool, error) {
	got, _, err := n.Publisher.Get(w.Collection, w.RKey)
	switch {
	case errors.Is(err, repo.ErrNotFound):
		return w.Action == repo.Delete, nil
	case err != nil:
		return false, fmt.Errorf("read back: %w", err)
	case w.Action == repo.Delete:
		return false, nil
	case got == block.CIDOf(w.Record):
		return true, nil
	}
	return false, errDifferent
}

// undo returns the deletes of those creates that have been made.
func (n *Notifier) undo(creates []repo.Write) ([]repo.Write, error) {
	var deletes []repo.Write
	for _, w := range creates {
		if w.Action != repo.Create {
			continue
		}
		made, err := n.made(w)
		if err != nil && !errors.Is(err, errDifferent) {
			return nil, err
		}
		if made {
			deletes = append(deletes, repo.Write{Action: repo.Delete, Collection: w.Collection, RKey: w.RKey})
		}
	}
	return deletes, nil
}
