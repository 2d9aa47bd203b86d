package crawl

import (
	"fmt"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	lagAllowed  = 5 * time.Minute // a relay that lags more is StateLagging
	unreachable = 3               // failures in a row after which a relay is StateUnreachable
)

// State is the state of the account at a relay.
type State string

const (
	StateCurrent     State = "current"     // it has all commits, or all but those of the last minutes
	StateLagging     State = "lagging"     // it lacks commits that are older than a few minutes
	StateInactive    State = "inactive"    // the account is inactive there
	StateUnknown     State = "unknown"     // it does not know the account
	StateUnreachable State = "unreachable" // it does not respond
)

// RelayStatus is the state of one relay.
type RelayStatus struct {
	Relay  string        // host
	State  State         // "" before the first query
	Reason string        // why it is not current
	Lag    time.Duration // age of the oldest commit that it is known to lack
}

// relayState is the known state of one relay.
type relayState struct {
	mu       sync.Mutex
	status   RelayStatus
	missing  string // rev of the oldest commit that the relay is known to lack; "": none
	failures int    // in a row
}

func (s *relayState) read() RelayStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// update applies the result of a query. rev was the account's before the query.
func (s *relayState) update(rev string, got accountStatus, err error, now time.Time) RelayStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.failures++; s.failures >= unreachable || s.status.State == "" {
			s.status.State, s.status.Reason = StateUnreachable, err.Error()
		}
		return s.status
	}
	s.failures = 0
	switch {
	case got.rev == "":
	case got.rev >= rev:
		s.missing = ""
	case s.missing == "" || got.rev >= s.missing:
		s.missing = rev
	}
	lag := time.Duration(0)
	if at, err := syntax.ParseTID(s.missing); err == nil {
		lag = max(0, now.Sub(at.Time()))
	}
	state, reason := got.state(lag, now)
	s.status = RelayStatus{Relay: s.status.Relay, State: state, Reason: reason, Lag: lag}
	return s.status
}

// state returns the state of a relay with a lag, and the reason if it is not current.
func (a accountStatus) state(lag time.Duration, now time.Time) (state State, reason string) {
	switch {
	case !a.known:
		state, reason = StateUnknown, "it does not know the account"
	case !a.active:
		state, reason = StateInactive, "the account's status there is "+a.status
	case lag > lagAllowed:
		state, reason = StateLagging, fmt.Sprintf("it lacks the commits since %s", now.Add(-lag).UTC().Format(time.RFC3339))
	default:
		return StateCurrent, ""
	}
	if a.host != "" {
		reason += "; the status of this host there is " + a.host
	}
	return state, reason
}
