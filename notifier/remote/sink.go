package remote

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	client "github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Name is the name of the sink.
const Name = "remote"

// A Hold is the hold that calls are sent to. The errors are those of client.Hold.
type Hold interface {
	// Notify makes a call, once.
	Notify(context.Context, client.Call) (lexicon.NotifyManifestOutput, error)
	// Written says whether a call whose answer was lost may be sent again.
	Written(context.Context, client.Call) (client.Written, error)
	// Status returns what is known of the hold without a call.
	Status() client.Status
}

const (
	// maxCalls is how many calls are sent at the same time, each of another repository.
	maxCalls = 8
	// handleTime is how long Handle begins new calls, so that the cursor moves now and then.
	handleTime = time.Second
	// lookups is how many events are looked up in storage at once.
	lookups = 4 * maxCalls
)

// A Sink reports each push. Deletes are not reported: the published API has no call for
// them.
type Sink struct {
	sink.Deps
	hold        Hold
	sendPrivate bool // reports repositories that are not public with the visibility private
	now         func() time.Time

	// Of the calls in the outbox, by sequence number:
	fresh   map[uint64]bool     // those that were certainly not sent
	trouble map[uint64]*trouble // those that the hold has failed for
}

// New returns the sink. With sendPrivate it also reports repositories that are not public,
// as private.
func New(deps sink.Deps, hold Hold, sendPrivate bool, now func() time.Time) *Sink {
	return &Sink{Deps: deps, hold: hold, sendPrivate: sendPrivate, now: now, fresh: map[uint64]bool{}, trouble: map[uint64]*trouble{}}
}

// Name implements sink.Sink.
func (s *Sink) Name() string { return Name }

// Confirm does nothing: Handle confirms the calls in the outbox, together with new ones.
func (s *Sink) Confirm(context.Context) error { return nil }

// Skip notes that an event was given up.
func (s *Sink) Skip(seq uint64) error {
	calls, err := s.readOutbox()
	if err != nil {
		return err
	}
	taken, err := LastTaken(s.State)
	if err != nil {
		return err
	}
	var b state.Batch
	putLastTaken(&b, max(seq, taken))
	return s.putOutbox(&b, without(calls, seq))
}

// Reports reports whether pushes of a repository are reported.
func (s *Sink) Reports(name string) bool { return s.sendPrivate || s.Public(name) }

// Handle reports pushes for a while. An error concerns the hold, or the only call that is
// left.
func (s *Sink) Handle(ctx context.Context, events []event.Sequenced) (done int, wake time.Time, err error) {
	calls, err := s.load(ctx, events[0].Seq)
	if err != nil {
		return 0, time.Time{}, err
	}
	taken, err := LastTaken(s.State)
	if err != nil {
		return 0, time.Time{}, err
	}
	for started := time.Now(); err == nil && time.Since(started) < handleTime; {
		next := slices.IndexFunc(events, func(e event.Sequenced) bool { return e.Seq > taken })
		if next >= 0 && s.mayTake(calls) {
			if calls, taken, err = s.take(ctx, calls, events[next:], taken); err != nil {
				break
			}
			next = slices.IndexFunc(events, func(e event.Sequenced) bool { return e.Seq > taken })
		}
		if len(calls) == 0 && next < 0 {
			break
		}
		calls, err = s.send(ctx, calls)
	}
	return finished(events, calls, taken), s.now(), err
}

// finished returns how many of the events are done: those that were taken, up to the first
// whose call is left.
func finished(events []event.Sequenced, calls []*call, taken uint64) int {
	n := slices.IndexFunc(events, func(e event.Sequenced) bool {
		return e.Seq > taken || len(calls) > 0 && e.Seq >= calls[0].Seq
	})
	if n < 0 {
		return len(events)
	}
	return n
}

// mayTake reports whether more calls may be added to those in the outbox: if there are
// none, or if each of them has failed so often that others are tried.
func (s *Sink) mayTake(calls []*call) bool {
	return len(calls) < maxCalls && !slices.ContainsFunc(calls, func(c *call) bool { return !s.trouble[c.Seq].suspect() })
}

// take adds the calls of the next events to the outbox, as many as may be sent at the same
// time.
func (s *Sink) take(ctx context.Context, calls []*call, events []event.Sequenced, taken uint64) ([]*call, uint64, error) {
	events = events[:min(len(events), lookups)]
	stored, err := s.Storage.Present(ctx, events, s.affects)
	if err != nil {
		return calls, taken, err
	}
	var b state.Batch
	all, last := slices.Clone(calls), taken
	for i, e := range events[:len(stored)] {
		c, reason, err := s.decide(e, stored[i])
		if err != nil {
			return calls, taken, err
		}
		if c != nil {
			if len(all) == maxCalls || slices.ContainsFunc(all, func(o *call) bool { return o.Name == c.Name }) {
				break
			}
			all = append(all, c)
		}
		if reason != "" {
			if err := pushrow.Put(&b, e.Result(), pushrow.RemotePart, pushrow.Remote{Reason: reason}); err != nil {
				return calls, taken, err
			}
		}
		last = e.Seq
	}
	putLastTaken(&b, last)
	if err := s.putOutbox(&b, all); err != nil {
		return calls, taken, err
	}
	for _, c := range all[len(calls):] {
		if !c.Retry {
			s.fresh[c.Seq] = true
		}
	}
	return all, last, nil
}
