package delivery

import (
	"errors"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// A Pause is a time in which nothing can be written to the account, and nothing was.
type Pause struct {
	Planned bool      // Limited, and no call has failed: the sink waits by itself
	Limited bool      // the points are spent, or the service asked to wait; otherwise the account cannot write
	Until   time.Time // when it ends; zero: not known
	Reason  string    // why the account cannot write, for the public; "": Limited, or not known
}

// PauseOf returns the pause that an error stands for; false if it stands for none.
func PauseOf(err error) (Pause, bool) {
	var failed *pds.Error
	if !errors.As(err, &failed) {
		return Pause{}, false
	}
	limited := failed.Outcome == pds.Limited
	return Pause{Planned: limited && failed.Planned, Limited: limited, Until: failed.Until, Reason: failed.Reason()}, limited || failed.Outcome == pds.Suspended
}

// RepoFails reports whether an error means that nothing can be written to an embedded repo.
func RepoFails(err error) bool {
	for _, whole := range []error{repo.ErrNoSpace, repo.ErrStopped, repo.ErrSuspended, repo.ErrDeactivated, repo.ErrClosed} {
		if errors.Is(err, whole) {
			return true
		}
	}
	return false
}
