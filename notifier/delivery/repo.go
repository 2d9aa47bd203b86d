package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// MaxWrites is how many writes a commit may have.
const MaxWrites = 200

// A Repo is the repo of the account, with writes that can be confirmed.
type Repo struct{ Publisher }

// ErrConflict is returned for a create whose key has another record.
var ErrConflict = errors.New("another record has this key")

// Deliver applies the writes, in commits of at most MaxWrites. Unless fresh, which
// means that none of them was sent before, it confirms them: each is read back,
// and only those that are missing are applied. The index of a *repo.WriteError counts
// in writes; it is the index of a write that is refused for good.
func (a *Repo) Deliver(ctx context.Context, writes []repo.Write, fresh bool) error {
	for from := 0; from < len(writes); from += MaxWrites {
		part := writes[from:min(from+MaxWrites, len(writes))]
		if err := a.deliverPart(ctx, part, fresh); err != nil {
			var invalid *repo.WriteError
			if errors.As(err, &invalid) {
				return &repo.WriteError{Index: invalid.Index + from, Path: invalid.Path, Err: invalid.Err}
			}
			return err
		}
	}
	return nil
}

func (a *Repo) deliverPart(ctx context.Context, part []repo.Write, fresh bool) error {
	left := make([]int, len(part)) // indexes in part
	for i := range left {
		left[i] = i
	}
	if !fresh {
		var err error
		if left, err = a.Missing(ctx, part); err != nil {
			return err
		}
	}
	for len(left) > 0 {
		writes := make([]repo.Write, len(left))
		for k, i := range left {
			writes[k] = part[i]
		}
		_, err := a.Apply(ctx, writes, nil)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) || invalid.Index < 0 || invalid.Index >= len(left) {
			return err
		}
		// The commit was refused. If one of its writes has already been applied by an
		// earlier call, the others are tried without it.
		missing, unread := a.Missing(ctx, part)
		if unread != nil {
			return unread
		}
		if len(missing) >= len(left) {
			return &repo.WriteError{Index: left[invalid.Index], Path: invalid.Path, Err: invalid.Err}
		}
		left = missing
	}
	return nil
}

// Missing returns the indexes of the writes that are not applied.
func (a *Repo) Missing(ctx context.Context, writes []repo.Write) ([]int, error) {
	var missing []int
	for i, w := range writes {
		done, err := a.Done(ctx, w)
		if errors.Is(err, ErrConflict) {
			return nil, &repo.WriteError{Index: i, Path: w.Collection + "/" + w.RKey, Err: ErrConflict}
		}
		if err != nil {
			return nil, err
		}
		if !done {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

// Done reports whether a write is applied: whether the record of a create
// exists, or that of a delete does not. It returns errConflict if the key of a
// create has another record.
func (a *Repo) Done(ctx context.Context, w repo.Write) (bool, error) {
	got, _, err := a.Get(ctx, w.Collection, w.RKey)
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
	return false, ErrConflict
}

// Undo returns deletes for those creates that are applied.
func (a *Repo) Undo(ctx context.Context, writes []repo.Write) ([]repo.Write, error) {
	var deletes []repo.Write
	for _, w := range writes {
		if w.Action != repo.Create {
			continue
		}
		done, err := a.Done(ctx, w)
		if err != nil && !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if done {
			deletes = append(deletes, repo.Write{Action: repo.Delete, Collection: w.Collection, RKey: w.RKey})
		}
	}
	return deletes, nil
}

// Each calls visit with the records of a collection in ascending order of their
// keys.
func (a *Repo) Each(ctx context.Context, collection string, visit func(repo.Record) error) error {
	for cursor := ""; ; {
		page, next, err := a.List(ctx, collection, cursor, 1000, true)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := visit(r); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			return ctx.Err()
		}
	}
}
