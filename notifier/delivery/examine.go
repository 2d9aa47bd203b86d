package delivery

import (
	"context"
	"errors"
	"slices"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// How a write that the PDS never accepts is found
//
// The reference PDS answers some writes that it will never accept with a status 500 that
// gives no reason, as it answers when its database fails. A PDS charges for these calls
// as well.
//
//  1. If a call has failed like this maxFailures times in a row, one of its writes is tried
//     alone and, if that fails, another one. If both fail, the PDS seems not to work,
//     and the sink tries two others later.
//  2. Otherwise the others are sent in halves, down to single writes. Those that fail
//     while others are applied are suspects.
//  3. A suspect that goes on failing while the PDS answers other calls is refused for
//     good after maxSuspectFailures, some minutes: the PDS may have begun to fail just
//     before its first attempt. A single write that was not compared with others is
//     refused after maxSingleFailures, about an hour.
const (
	maxFailures        = 3
	maxSuspectFailures = 10
	maxSingleFailures  = 60
)

// failures are the calls that failed inside of the PDS.
type failures struct {
	first    string          // path of the first write of the call that fails
	count    int             // in a row
	suspects map[string]bool // by path
}

// failsInside reports whether a PDS has answered that it failed, without a reason.
func failsInside(err error) bool {
	var e *pds.Error
	return errors.As(err, &e) && e.Outcome == pds.Unknown && e.Status >= 500
}

// fails notes n failures of the call whose first write has a path, and returns how often it
// has failed in a row, and whether the write is a suspect.
func (a *Repo) fails(path string, n int) (count int, suspect bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if path != a.failures.first {
		a.failures.first, a.failures.count = path, 0
	}
	a.failures.count += n
	return a.failures.count, a.failures.suspects[path]
}

// succeeds notes that writes were applied.
func (a *Repo) succeeds(writes []repo.Write) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures.first, a.failures.count = "", 0
	for _, w := range writes {
		delete(a.failures.suspects, path(w))
	}
}

// suspect notes that writes failed while others were applied.
func (a *Repo) suspect(part []repo.Write, indexes []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures.suspects = map[string]bool{}
	for _, i := range indexes {
		a.failures.suspects[path(part[i])] = true
	}
}

func path(w repo.Write) string { return w.Collection + "/" + w.RKey }

// examine sends writes of which a call has failed inside of the PDS maxFailures times, or
// of which the first one is a suspect. It returns a *repo.WriteError for one that is
// refused for good.
func (a *Repo) examine(ctx context.Context, part []repo.Write, indexes []int) error {
	first := part[indexes[0]]
	count, suspect := a.fails(path(first), 0)
	if suspect || len(indexes) == 1 {
		if err := a.tryAlone(ctx, part, indexes[0], suspect); err != nil || len(indexes) == 1 {
			return err
		}
		return a.applyOnce(ctx, part, indexes[1:])
	}
	failed, rest, err := a.probe(ctx, part, indexes, count)
	if failsInside(err) {
		a.fails(path(first), 1)
	}
	if err != nil {
		return err
	}
	more, err := a.bisect(ctx, part, rest)
	if err != nil {
		return err
	}
	if failed = append(failed, more...); len(failed) == 0 {
		return nil
	}
	a.suspect(part, failed)
	return errSuspects
}

// probe applies one of several writes, which differs with n, alone. It returns which one
// failed before, if one did, and those that were not tried.
func (a *Repo) probe(ctx context.Context, part []repo.Write, indexes []int, n int) (failed, rest []int, err error) {
	rest = slices.Clone(indexes)
	for _, at := range []int{n % len(indexes), (n + len(indexes)/2) % len(indexes)} {
		index := indexes[at]
		rest = slices.DeleteFunc(rest, func(i int) bool { return i == index })
		if err = a.call(ctx, part, []int{index}); !failsInside(err) {
			return failed, rest, err
		}
		failed = append(failed, index)
	}
	return failed, rest, err
}

// errSuspects is returned when all writes were applied except for suspects.
var errSuspects = errors.New("the PDS fails for some of the writes, which are tried again")

// tryAlone sends a single write, and refuses it for good once it has failed often enough
// while the PDS answers other calls.
func (a *Repo) tryAlone(ctx context.Context, part []repo.Write, index int, suspect bool) error {
	err := a.call(ctx, part, []int{index})
	if !failsInside(err) {
		return err
	}
	most := maxSingleFailures
	if suspect {
		most = maxSuspectFailures
	}
	count, _ := a.fails(path(part[index]), 1)
	if _, unread := a.Rev(ctx); unread != nil || count < most {
		return err
	}
	return &repo.WriteError{Index: index, Path: path(part[index]), Err: err}
}

// bisect sends writes in halves, down to single ones, and returns those that fail inside of
// the PDS.
func (a *Repo) bisect(ctx context.Context, part []repo.Write, indexes []int) (failed []int, err error) {
	if len(indexes) == 0 {
		return nil, nil
	}
	err = a.call(ctx, part, indexes)
	if !failsInside(err) {
		return nil, err
	}
	missing, err := a.missingOf(ctx, part, indexes) // the call may have been applied
	if err != nil || len(missing) <= 1 {
		return missing, err
	}
	half := len(missing) / 2
	for _, indexes := range [][]int{missing[:half], missing[half:]} {
		more, err := a.bisect(ctx, part, indexes)
		if failed = append(failed, more...); err != nil {
			return failed, err
		}
	}
	return failed, nil
}
