package remote

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	client "github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How a push is reported
//
// Each push becomes one call. Its input, its key (the event's ID) and its time are
// durable before it is sent, so that the same call is sent again after a crash:
//
//  1. One commit puts the calls of the next pushes into the outbox, one of each
//     repository, and moves state.RemoteTaken, the sequence number of the last event that
//     was taken. An event up to this number is not taken again.
//  2. The calls are sent, at the same time. The calls of one repository follow each other:
//     a push is not taken while the outbox has a call of its repository.
//  3. One commit writes the answers into the rows of the pushes, and removes the calls that
//     are done. A call that the hold refuses for good gets a dead letter before that.
//  4. The sink's cursor moves up to the first call that is left.
//
// Crash cases:
//
//   - Before 1: the events are read again. Nothing was sent.
//   - Between 1 and 3, or if the answer to 2 is lost: it is not known whether the hold has
//     applied the call. Hold.Written decides whether it is sent again: with the same key at
//     a hold that honors keys; at another hold only what it does not have. A call that may
//     not be repeated is done, with the reason in its row.
//   - Between 3 and 4: the events are read again, and skipped up to state.RemoteTaken.
//
// Before a call is sent again, public and storage are asked again. A push of a repository
// that is not public any more, or of a manifest that was deleted, is not repeated.
//
// A hold that answers one call with status 500 each time would hold up all others. After
// tries of them, calls of other repositories are sent before it. If the hold takes one of
// those and fails again for this call, the call is given up.
//
// A retry of a dead letter has the key and the time of the push, and is handled like a call
// whose answer was lost: an earlier call may have been applied although it was given up. If
// it may not be repeated, it is given up again.
//
// If the journal drops events at its limit, their calls are removed from the outbox: their
// dead letters say that they are given up.

// A call is a push that is being reported. This is its form in the state.
type call struct {
	Seq   uint64                      `json:"seq"`
	Name  string                      `json:"name"` // of the repository, as Event.Name returns it
	Key   string                      `json:"key"`
	Since time.Time                   `json:"since"` // not after it was sent first
	Input lexicon.NotifyManifestInput `json:"input"`
	Odd   string                      `json:"odd,omitempty"` // which layers are left out or changed

	Origin uint64 `json:"origin,omitempty"` // as in the event
	Retry  bool   `json:"retry,omitempty"`  // of a dead letter: an earlier call of the push may have been applied

	lost bool // it may have been sent
}

// result is the sequence number that the result of the push is stored under.
func (c *call) result() uint64 { return cmp.Or(c.Origin, c.Seq) }

func (c *call) client() client.Call {
	return client.Call{Input: c.Input, Key: c.Key, Since: c.Since}
}

// readOutbox returns the calls that are not done, in the order of their events.
func (s *Sink) readOutbox() ([]*call, error) {
	val, err := s.State.Get(state.RemoteOutbox)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	var calls []*call
	if err == nil {
		err = json.Unmarshal(val, &calls)
	}
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	for _, c := range calls {
		c.lost = !s.fresh[c.Seq]
	}
	return calls, nil
}

// putOutbox commits the calls together with b.
func (s *Sink) putOutbox(b *state.Batch, calls []*call) error {
	if len(calls) == 0 {
		b.Delete(state.RemoteOutbox)
	} else {
		val, err := json.Marshal(calls)
		if err != nil {
			return fmt.Errorf("write outbox: %w", err)
		}
		b.Set(state.RemoteOutbox, val)
	}
	if err := s.State.Commit(b, state.Sync); err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	return nil
}

// LastTaken returns the sequence number of the last event that was taken.
func LastTaken(db state.Store) (uint64, error) {
	last, err := state.Number(db.Get(state.RemoteTaken))
	if err != nil {
		return 0, fmt.Errorf("read the last event of the remote sink: %w", err)
	}
	return last, nil
}

func putLastTaken(b *state.Batch, seq uint64) {
	b.SetNumber(state.RemoteTaken, seq)
}

// without returns the calls except for those with the sequence numbers.
func without(calls []*call, seqs ...uint64) []*call {
	return slices.DeleteFunc(slices.Clone(calls), func(c *call) bool { return slices.Contains(seqs, c.Seq) })
}
