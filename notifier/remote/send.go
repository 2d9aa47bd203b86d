package remote

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	client "github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Reasons of a push whose answer was lost.
const (
	reasonReadBack  = "the answer of the hold was lost, and its records were found"
	reasonUncertain = "the answer of the hold was lost, and it is not known whether the hold has applied the call; it is not repeated"
)

var (
	errNoSuccess = errors.New("the hold answers that it was not successful")
	errUncertain = errors.New(reasonUncertain)
)

const (
	// tries is how often the hold may fail for a call before calls of other repositories are
	// sent first, and maxTries how often before it is given up, if the hold takes those.
	tries    = 3
	maxTries = 5
)

// trouble is what is known of a call that the hold has answered with a 5xx.
type trouble struct {
	failures int
	others   bool // the hold has taken other calls after tries failures
}

func (t *trouble) suspect() bool { return t != nil && t.failures >= tries }

func (t *trouble) hopeless() bool { return t != nil && t.failures >= maxTries && t.others }

// A result is the outcome of a call. With an error it is left in the outbox.
type result struct {
	*call
	row    *pushrow.Remote // it is done
	refuse error           // it is given up
	err    error
}

// send sends the calls, first those that the hold has not failed for, and returns those
// that are left.
func (s *Sink) send(ctx context.Context, calls []*call) ([]*call, error) {
	var clear, suspects []*call
	for _, c := range calls {
		if s.trouble[c.Seq].suspect() {
			suspects = append(suspects, c)
		} else {
			clear = append(clear, c)
		}
	}
	for _, group := range [][]*call{clear, suspects} {
		if len(group) == 0 {
			continue
		}
		var err error
		if calls, err = s.finish(calls, s.sendAll(ctx, group)); err != nil {
			return calls, err
		}
	}
	return calls, nil
}

// sendAll sends calls at the same time.
func (s *Sink) sendAll(ctx context.Context, calls []*call) []result {
	results := make([]result, len(calls))
	var group sync.WaitGroup
	for i, c := range calls {
		group.Go(func() { results[i] = s.sendOne(ctx, c) })
	}
	group.Wait()
	return results
}

func (s *Sink) sendOne(ctx context.Context, c *call) result {
	next, found := c.client(), 0
	if c.lost {
		w, err := s.hold.Written(ctx, next)
		switch {
		case err != nil:
			return result{call: c, err: err}
		case w.Next == client.Uncertain && c.Retry:
			return result{call: c, refuse: errUncertain}
		case w.Next == client.Uncertain:
			return result{call: c, row: &pushrow.Remote{Reason: reasonUncertain}}
		case w.Next == client.Applied:
			n := len(w.Records)
			return result{call: c, row: &pushrow.Remote{
				Answer: &lexicon.NotifyManifestOutput{Success: true, Operation: event.OpPush, LayersCreated: &n}, Reason: reasonReadBack,
			}}
		}
		next, found = w.Call, len(w.Records)
	}
	out, err := s.hold.Notify(ctx, next)
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused):
		return result{call: c, refuse: err}
	case err != nil:
		return result{call: c, err: err}
	case !out.Success:
		return result{call: c, refuse: errNoSuccess}
	}
	if out.LayersCreated != nil && found > 0 { // of two calls
		n := *out.LayersCreated + found
		out.LayersCreated = &n
	}
	return result{call: c, row: &pushrow.Remote{Answer: &out, Reason: c.Odd}}
}

// finish writes the results and removes the calls that are done or given up. The error is
// the first of a call that is left.
func (s *Sink) finish(calls []*call, results []result) ([]*call, error) {
	var b state.Batch
	var ended []uint64
	var failed error
	for _, r := range results {
		if r.err != nil {
			s.noteFailure(r)
			if s.trouble[r.Seq].hopeless() {
				r.refuse = r.err
			} else {
				if failed == nil {
					failed = r.err
				}
				continue
			}
		}
		if r.refuse != nil {
			if err := s.GiveUp(r.Seq, r.refuse); err != nil {
				return calls, err
			}
		} else if err := pushrow.Put(&b, r.result(), pushrow.RemotePart, r.row); err != nil {
			return calls, err
		}
		ended = append(ended, r.Seq)
	}
	if len(ended) == 0 {
		return calls, failed
	}
	left := without(calls, ended...)
	if err := s.putOutbox(&b, left); err != nil {
		return calls, err
	}
	for _, seq := range ended {
		delete(s.fresh, seq)
		delete(s.trouble, seq)
	}
	s.noteSuccess(results)
	return left, failed
}

// noteFailure notes whether the call may have been applied, and whether the hold has
// failed for it.
func (s *Sink) noteFailure(r result) {
	if !client.Lost(r.err) {
		return // it was not sent, or not applied
	}
	r.lost = true
	delete(s.fresh, r.Seq)
	var answer *pds.Error
	if errors.As(r.err, &answer) && answer.Status >= 500 {
		if s.trouble[r.Seq] == nil {
			s.trouble[r.Seq] = &trouble{}
		}
		s.trouble[r.Seq].failures++
	}
}

// noteSuccess notes that the hold takes other calls than those that it fails for.
func (s *Sink) noteSuccess(results []result) {
	taken := slices.ContainsFunc(results, func(r result) bool { return r.row != nil })
	for _, t := range s.trouble {
		t.others = t.others || taken && t.suspect()
	}
}
