package delivery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// How a batch is delivered
//
// Deliver sends the writes of a batch in calls of at most MaxWrites writes. What it does
// after a call that failed depends on what the error says:
//
//   - A *repo.WriteError names a write that is refused for good. If it was applied by an
//     earlier call, the others are sent without it; otherwise Deliver returns the error,
//     and the sink gives the write up.
//   - pds.TooLarge, or pds.Refused without saying which write: the call is repeated in
//     two halves, and a pair that is refused alone as two calls.
//   - pds.Limited and pds.Suspended: nothing was applied. The sink pauses (see PauseOf).
//   - All else, such as a lost answer: it is not known whether the writes are applied. The
//     sink calls Deliver again, which reads them back before it sends what is missing.

// MaxWrites is how many writes a commit may have.
const MaxWrites = 200

// A Repo is the repo of the account, with writes that can be confirmed.
type Repo struct {
	Publisher

	applied atomic.Int64 // writes

	mu       sync.Mutex
	rev      string // after the last call; "": not known
	failures failures
}

// NewRepo returns the repo that p writes to.
func NewRepo(p Publisher) *Repo { return &Repo{Publisher: p} }

// Applied is how many writes were applied since the start.
func (a *Repo) Applied() int64 { return a.applied.Load() }

// ErrConflict is returned for a create whose key has another record.
var ErrConflict = errors.New("another record has this key")

// Deliver applies the writes. Unless fresh, which means that none of them was sent
// before, it confirms them: each is read back, and only those that are missing are
// applied. The index of a *repo.WriteError counts in writes; it is the index of a write
// that is refused for good.
func (a *Repo) Deliver(ctx context.Context, writes []repo.Write, fresh bool) error {
	for from, to := 0, 0; from < len(writes); from = to {
		to = from + cut(writes[from:], MaxWrites)
		part := writes[from:to]
		left, err := all(part), error(nil)
		if !fresh {
			left, err = a.Missing(ctx, part)
		}
		if err == nil {
			err = a.apply(ctx, part, left)
		}
		if err != nil {
			return moveIndex(err, func(i int) int { return i + from })
		}
	}
	return nil
}

// all returns the indexes of the writes.
func all(writes []repo.Write) []int {
	indexes := make([]int, len(writes))
	for i := range indexes {
		indexes[i] = i
	}
	return indexes
}

// moveIndex changes the index of a *repo.WriteError.
func moveIndex(err error, to func(int) int) error {
	var invalid *repo.WriteError
	if !errors.As(err, &invalid) {
		return err
	}
	return &repo.WriteError{Index: to(invalid.Index), Path: invalid.Path, Err: invalid.Err}
}

// apply applies the writes of a part whose indexes are in left. The index of a
// *repo.WriteError counts in part.
func (a *Repo) apply(ctx context.Context, part []repo.Write, left []int) error {
	for len(left) > 0 {
		if err := a.takeRefused(part, left); err != nil {
			return err
		}
		now, later := a.fitting(part, left)
		err := a.applyOnce(ctx, part, now)
		var invalid *repo.WriteError
		if errors.As(err, &invalid) {
			// If the write has already been applied by an earlier call, the others are tried
			// without it.
			missing, unread := a.missingOf(ctx, part, now)
			if unread != nil {
				return unread
			}
			if slices.Contains(missing, invalid.Index) {
				return err
			}
			later, err = append(missing, later...), nil
		}
		if err != nil {
			return err
		}
		left = later
	}
	return nil
}

// A budgeted Publisher limits how much may be written at the moment.
type budgeted interface {
	// Fit returns how many of the writes, from the first, may be made now.
	Fit(writes []repo.Write) int
}

// fitting divides indexes into those of writes that may be made now, at least one, and the
// others.
func (a *Repo) fitting(part []repo.Write, left []int) (now, later []int) {
	b, ok := a.Publisher.(budgeted)
	if !ok {
		return left, nil
	}
	writes := pick(part, left)
	n := cut(writes, max(1, b.Fit(writes)))
	return left[:n], left[n:]
}

// cut returns how many of the writes are sent in a call that has room for most, without
// dividing a pair: two writes in a row with the same key, such as a document and its post. A
// pair alone is sent in any case.
func cut(writes []repo.Write, most int) int {
	pair := func(i int) bool {
		return writes[i-1].RKey == writes[i].RKey && writes[i-1].Collection != writes[i].Collection
	}
	switch {
	case most >= len(writes):
		return len(writes)
	case !pair(most):
		return most
	case most > 1:
		return most - 1
	}
	return 2
}

// pick returns the writes with the indexes.
func pick(part []repo.Write, indexes []int) []repo.Write {
	writes := make([]repo.Write, len(indexes))
	for k, i := range indexes {
		writes[k] = part[i]
	}
	return writes
}

// applyOnce sends writes once or, if the PDS does not take them together, in halves.
func (a *Repo) applyOnce(ctx context.Context, part []repo.Write, indexes []int) error {
	if len(indexes) > 1 && a.fails(path(part[indexes[0]]), 0) >= maxFailures {
		return a.examine(ctx, part, indexes)
	}
	err := a.call(ctx, part, indexes)
	var failed *pds.Error
	if !errors.As(err, &failed) || errors.As(err, new(*repo.WriteError)) {
		return err
	}
	switch {
	case isRefusal(failed):
		if len(indexes) == 1 {
			return refusalOf(part, indexes[0], err)
		}
		half := len(indexes) / 2
		if n := cut(pick(part, indexes), half); n < len(indexes) {
			half = n
		}
		if err := a.applyOnce(ctx, part, indexes[:half]); err != nil {
			return err
		}
		return a.applyOnce(ctx, part, indexes[half:])
	case failsInside(failed):
		return a.failed(ctx, part, indexes, err)
	}
	return err
}

// isRefusal reports whether a PDS has refused a call for good, which may be because of one
// of its writes.
func isRefusal(e *pds.Error) bool { return e.Outcome == pds.TooLarge || e.Outcome == pds.Refused }

// refusalOf is the error for a write that is refused for good.
func refusalOf(part []repo.Write, i int, err error) *repo.WriteError {
	return &repo.WriteError{Index: i, Path: path(part[i]), Err: err}
}

func path(w repo.Write) string { return w.Collection + "/" + w.RKey }

// note notes the revision after a call, "" after one that failed.
func (a *Repo) note(rev string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rev = rev
}

// Revision is the revision of the repo after the last call of Deliver, or a later one. It is
// read only if that call failed or there was none.
func (a *Repo) Revision(ctx context.Context) (string, error) {
	a.mu.Lock()
	rev := a.rev
	a.mu.Unlock()
	if rev != "" {
		return rev, nil
	}
	return a.Rev(ctx)
}

// call makes one call. The index of a *repo.WriteError counts in part.
func (a *Repo) call(ctx context.Context, part []repo.Write, indexes []int) error {
	result, err := a.Apply(ctx, pick(part, indexes), nil)
	if err != nil {
		result.Rev = "" // it may have been applied
	}
	a.note(result.Rev)
	if err == nil {
		a.applied.Add(int64(len(indexes)))
		a.fails("", 0)
		return nil
	}
	var invalid *repo.WriteError
	if errors.As(err, &invalid) && (invalid.Index < 0 || invalid.Index >= len(indexes)) {
		return invalid.Err
	}
	return moveIndex(err, func(i int) int { return indexes[i] })
}

// Each calls visit with the records of a collection in ascending order of their
// keys.
func (a *Repo) Each(ctx context.Context, collection string, visit func(repo.Record) error) error {
	return a.EachAfter(ctx, collection, "", visit)
}

// EachAfter is Each for the records after a key; "": for all.
func (a *Repo) EachAfter(ctx context.Context, collection, after string, visit func(repo.Record) error) error {
	for cursor := after; ; {
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
