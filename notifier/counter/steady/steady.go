// Package steady tells whether the clock has jumped, also while the process was stopped.
package steady

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
)

const (
	steadyFor = 48 * time.Hour     // time without a jump before the clock is steady
	maxStep   = 7 * 24 * time.Hour // between two checks; more is a jump
)

// A State is what is known of the clock. It is stored as JSON.
type State struct {
	Since  time.Time // it has not jumped since
	Last   time.Time // when it was last checked
	Before time.Time // its time before it jumped ahead; zero: it has not
	Ahead  time.Time // its time after that
	Back   bool      // it has jumped back to between Before and Ahead
}

// Check is State.Check of the state under a key of db, which it stores. A damaged state is
// replaced.
func Check(db *store.Store, key []byte, now time.Time) (steady bool, s State, err error) {
	raw, err := store.Read(db, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, s, err
	}
	if err != nil || json.Unmarshal(raw, &s) != nil {
		s = State{}
	}
	steady = s.Check(now)
	if raw, err = json.Marshal(s); err == nil {
		err = db.Set(key, raw, store.NoSync)
	}
	return steady && err == nil, s, err
}

// Check notes the present time, and reports whether the clock has been steady for two days.
func (s *State) Check(now time.Time) bool {
	switch {
	case s.Last.IsZero():
		s.Since = now
	case now.Sub(s.Last) > maxStep:
		s.Since, s.Before, s.Ahead, s.Back = now, s.Last, now, false
	case now.Before(s.Last):
		s.Since = now
		if s.Back = !s.Back && !s.Before.IsZero() && !now.Before(s.Before) && now.Before(s.Ahead); !s.Back {
			s.Before = time.Time{}
		}
	}
	s.Last = now
	return now.Sub(s.Since) >= steadyFor
}
