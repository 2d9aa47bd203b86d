package counter

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// Status is the state of publishing.
type Status struct {
	Redis       bool      `json:"redis"`              // Redis is configured
	Current     time.Time `json:"current,omitzero"`   // when Redis last had all counts; zero: not since the start
	Error       string    `json:"error,omitempty"`    // of the last round; may have host names and keys
	Reason      string    `json:"reason,omitempty"`   // the same without them, so that it can be published
	Unreachable bool      `json:"away,omitempty"`     // Redis does not answer
	Warnings    []string  `json:"warnings,omitempty"` // why Redis may lose data
}

// status is the state of publishing that readers need.
type status struct {
	mu sync.Mutex
	Status
	id           string
	records      [2]string                        // Redis has one of these: the acknowledged record or the one being sent
	upto         map[string]rediscounts.Sequences // Upto of each id in the last round
	missingSince time.Time                        // since when counts of other ids are missing; zero: none are missing
}

// Reasons, which can be published.
const (
	reasonLost    = "Redis has lost counts; they are being sent again"
	reasonOthers  = "Redis has lost counts of another registry"
	reasonStart   = "counts were not published since the start"
	reasonUnknown = "see the log for the reason"
)

// reasonOf returns a reason for an error that can be published.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, store.ErrNoSpace), errors.Is(err, store.ErrStopped):
		return "this registry can't write to its disk"
	case errors.Is(err, rediscounts.ErrChanged):
		return reasonLost
	case errors.Is(err, errUndecided):
		return "another data folder has the registry id in Redis, and is watched before the id is claimed"
	}
	return cmp.Or(rediscounts.Reason(err), reasonUnknown)
}

// Status returns the state of publishing.
func (c *Counter) Status() Status {
	c.status.mu.Lock()
	defer c.status.mu.Unlock()
	s := c.status.Status
	s.Redis = c.redis != nil
	s.Warnings = slices.Clone(s.Warnings)
	switch {
	case s.Redis && s.Reason == "" && s.Current.IsZero():
		s.Reason = reasonStart
	case s.Reason == "" && !c.status.missingSince.IsZero():
		s.Reason = reasonOthers
	}
	return s
}

func (s *status) finished(now time.Time, err error, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Error, s.Reason, s.Unreachable = "", reason, reason == rediscounts.Unreachable
	if err != nil {
		s.Error = err.Error()
		return
	}
	s.Current = now
}

func (s *status) sending(id, raw string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != id {
		s.id, s.records = id, [2]string{}
	}
	s.records[1] = raw
}

func (s *status) wrote(id, raw string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.records = id, [2]string{raw, raw}
}

// othersWait is how long readers wait for missing counts of other registries before they show
// the sum without them. A running registry sends its counts again within seconds.
const othersWait = time.Minute

// checkOthers compares the records of other ids with those of the last round.
func (s *status) checkOthers(ids map[string]string, ours []string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]rediscounts.Sequences{}
	for id, raw := range ids {
		if rec := rediscounts.ParseRecord(raw); rec != nil && !rec.Removed && !rec.Part {
			next[id] = rec.Upto
		}
	}
	missing := false
	for id, upto := range s.upto {
		rec := rediscounts.ParseRecord(ids[id])
		if !slices.Contains(ours, id) && (rec == nil || rec.Part || !rec.Removed && upto.Beyond(rec.Upto)) {
			missing = true
		}
	}
	switch passed := now.Sub(s.missingSince); {
	case missing && (s.missingSince.IsZero() || passed < 0):
		s.missingSince = now
	case !missing || passed > othersWait:
		s.missingSince, s.upto = time.Time{}, next
		return
	}
	for id, upto := range s.upto {
		if latest, ok := next[id]; !ok || upto.Beyond(latest) {
			next[id] = upto
		}
	}
	s.upto = next
}

// Check compares the records that a reader found in Redis with those that were last written.
// It returns an error if Redis does not have the counts of all registries. The text of the
// error can be published.
func (c *Counter) Check(ids map[string]string) error {
	c.status.mu.Lock()
	defer c.status.mu.Unlock()
	s := &c.status
	reason := s.Reason
	if reason == "" && s.Current.IsZero() {
		reason = reasonStart
	}
	current := ids[s.id]
	if lost := current == "" || current != s.records[0] && current != s.records[1]; reason == "" && lost {
		reason = reasonLost
		s.Reason = reason // until the end of the next round, which is started now
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	if reason == "" && !s.missingSince.IsZero() {
		reason = reasonOthers
	}
	if reason != "" {
		return errors.New(reason)
	}
	return nil
}

// inspect logs why Redis may lose data, when that has changed.
func (c *Counter) inspect(ctx context.Context) error {
	if c.redis == nil {
		return nil
	}
	warnings, err := c.redis.Warnings(ctx)
	if err != nil {
		return err
	}
	c.status.mu.Lock()
	before := c.status.Warnings
	c.status.Warnings = warnings
	c.status.mu.Unlock()
	if !slices.Equal(before, warnings) {
		for _, w := range warnings {
			c.log.Warn("Redis may lose counts: " + w)
		}
	}
	return nil
}
