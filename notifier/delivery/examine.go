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
//  1. If a call has failed like this maxFailures times in a row, one of its writes is sent
//     alone, instead of the call. If it fails too, the PDS seems not to work, and the sink
//     tries another one later. So an outage costs the points of one write an attempt.
//  2. Otherwise the others are sent in halves, down to single writes.
//  3. After a write that fails alone, another one is sent alone. If that is applied and
//     the first one fails twice more, the first one is refused for good. If maxOthers fail,
//     too, the PDS seems not to work any more.
//
// A single write cannot be compared with others. It is refused after maxSingleFailures,
// about an hour, if the PDS answers reads. So is the first of several writes that are left
// after others were applied, once each can have been sent alone as often.
const (
	maxFailures       = 3
	maxOthers         = 3
	maxSingleFailures = 60
)

// failures are the calls that failed inside of the PDS.
type failures struct {
	first    string             // path of the first write of the call that fails
	count    int                // in a row
	suspects map[string]suspect // by path
}

// A suspect is a write that was not applied while others were.
type suspect struct {
	err     error
	refused bool // for good
}

// failsInside reports whether a PDS has answered that it failed, without a reason.
func failsInside(err error) bool {
	var e *pds.Error
	return errors.As(err, &e) && e.Outcome == pds.Unknown && e.Status >= 500
}

// fails notes n failures of the call whose first write has a path, and returns how often it
// has failed in a row.
func (a *Repo) fails(path string, n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if path != a.failures.first {
		a.failures.first, a.failures.count = path, 0
	}
	a.failures.count += n
	return a.failures.count
}

// failed notes that a call of the writes has failed inside of the PDS with err. It returns
// err, or a *repo.WriteError if the first of them is refused for good.
func (a *Repo) failed(ctx context.Context, part []repo.Write, indexes []int, err error) error {
	n := len(indexes)
	if count := a.fails(path(part[indexes[0]]), 1); count < n*maxSingleFailures || n > 1 && !a.suspected(part, indexes) {
		return err
	}
	if _, unread := a.Rev(ctx); unread != nil {
		return err
	}
	return refusalOf(part, indexes[0], err)
}

// suspected reports whether all of the writes are suspects.
func (a *Repo) suspected(part []repo.Write, indexes []int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !slices.ContainsFunc(indexes, func(i int) bool {
		_, ok := a.failures.suspects[path(part[i])]
		return !ok
	})
}

// takeRefused returns a *repo.WriteError for one of the writes that an examination has
// found to be refused for good, once; nil if there is none.
func (a *Repo) takeRefused(part []repo.Write, indexes []int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range indexes {
		if s := a.failures.suspects[path(part[i])]; s.refused {
			delete(a.failures.suspects, path(part[i]))
			return refusalOf(part, i, s.err)
		}
	}
	return nil
}

// examine sends writes of which a call has failed inside of the PDS maxFailures times. It
// returns a *repo.WriteError for one that is refused for good, and nil if all are applied.
func (a *Repo) examine(ctx context.Context, part []repo.Write, indexes []int) error {
	count := a.fails(path(part[indexes[0]]), 0)
	x := examination{Repo: a, part: part}
	err := x.run(ctx, indexes, len(indexes)-1-count%len(indexes))
	if !x.applied && failsInside(err) {
		return a.failed(ctx, part, indexes, err)
	}
	x.note()
	if refused := a.takeRefused(part, indexes); refused != nil {
		return refused
	}
	return err
}

// An examination sends the writes of a call in groups.
type examination struct {
	*Repo
	part    []repo.Write
	groups  [][]int // to be sent
	applied bool    // some writes were
	failed  []int   // alone, and cannot be compared with others
	refused []int   // for good
	err     error   // of the last call that failed inside of the PDS
}

// run sends the writes, beginning with the one at first. It returns nil if all are applied or
// refused for good.
func (x *examination) run(ctx context.Context, indexes []int, first int) error {
	order := slices.Concat(indexes[first:], indexes[:first])
	missing, err := x.send(ctx, order[:1])
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return x.err
	}
	x.split(order[1:])
	for len(x.groups) > 0 {
		group := x.groups[0]
		x.groups = x.groups[1:]
		missing, err := x.send(ctx, group)
		if err == nil && len(missing) > 0 && len(group) > 1 {
			x.split(missing)
		} else if err == nil && len(missing) > 0 {
			err = x.compare(ctx, missing[0])
		}
		if err != nil {
			return err
		}
	}
	if len(x.failed) > 0 {
		return x.err
	}
	return nil
}

// split sends the halves of writes next.
func (x *examination) split(indexes []int) {
	halves := slices.Collect(slices.Chunk(indexes, (len(indexes)+1)/2))
	x.groups = slices.Concat(halves, x.groups)
}

// send sends writes in one call and returns those that are not applied. It returns an error
// if the call says nothing of single writes, and a *repo.WriteError for one that is refused.
func (x *examination) send(ctx context.Context, indexes []int) (missing []int, err error) {
	err = x.call(ctx, x.part, indexes)
	if err == nil {
		x.applied = true
		return nil, nil
	}
	var failed *pds.Error
	switch {
	case !errors.As(err, &failed) || errors.As(err, new(*repo.WriteError)):
		return nil, err
	case isRefusal(failed) && len(indexes) == 1:
		return nil, refusalOf(x.part, indexes[0], err)
	case isRefusal(failed):
		return indexes, nil
	case !failsInside(failed):
		return nil, err
	}
	x.err = err
	missing, err = x.missingOf(ctx, x.part, indexes) // the call may have been applied
	x.applied = x.applied || err == nil && len(missing) < len(indexes)
	return missing, err
}

// compare decides whether a write that failed alone is refused for good, by sending others
// alone.
func (x *examination) compare(ctx context.Context, index int) error {
	works, err := x.works(ctx)
	if err != nil || !works {
		x.failed = append(x.failed, index)
		return err
	}
	missing := []int{index}
	for try := 0; try < 2 && len(missing) > 0; try++ {
		if missing, err = x.send(ctx, missing); err != nil {
			return err
		}
	}
	x.refused = append(x.refused, missing...)
	return nil
}

// works reports whether one of the last of the other writes is applied alone. It returns an
// error if the PDS seems not to work; if there is no other write, that is not known.
func (x *examination) works(ctx context.Context) (bool, error) {
	var failed []int
	for len(x.groups) > 0 && len(failed) < maxOthers {
		other := x.takeLast()
		missing, err := x.send(ctx, []int{other})
		if err != nil {
			return false, err
		}
		if len(missing) == 0 {
			for _, i := range failed {
				x.groups = slices.Insert(x.groups, 0, []int{i})
			}
			return true, nil
		}
		failed = append(failed, other)
	}
	x.failed = append(x.failed, failed...)
	if len(failed) == maxOthers {
		return false, x.err
	}
	return false, nil
}

// takeLast takes the last write out of the groups.
func (x *examination) takeLast() int {
	end := len(x.groups) - 1
	group := x.groups[end]
	if len(group) == 1 {
		x.groups = x.groups[:end]
	} else {
		x.groups[end] = group[:len(group)-1]
	}
	return group[len(group)-1]
}

// note keeps the writes that are not applied.
func (x *examination) note() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failures.suspects = map[string]suspect{}
	for _, i := range slices.Concat(append(x.groups, x.failed)...) {
		x.failures.suspects[path(x.part[i])] = suspect{err: x.err}
	}
	for _, i := range x.refused {
		x.failures.suspects[path(x.part[i])] = suspect{x.err, true}
	}
}
