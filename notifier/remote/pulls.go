package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	client "github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
)

// How a pull is reported
//
// The reader of the pull stream makes one call for each pull of a public repository that is
// counted as a pull, one after the other, at most one in Interval, and only while no push is
// pending. There is no outbox: the event itself is durable.
//
//   - A hold that honors keys counts a repeated call once. The cursor moves after the call,
//     and after a crash or a lost answer the same call is sent again: exactly once.
//   - Any other hold leaves nothing that shows whether it has counted a pull. The cursor
//     moves, durably, before the call, and a call whose answer is lost is not repeated: at
//     most once.
//
// Which of both a hold is, is asked before the first call.

// DefaultInterval is the shortest time between two calls for pulls.
const DefaultInterval = 200 * time.Millisecond

// ErrUncounted means that the answer to a call was lost, which may not be repeated.
var ErrUncounted = errors.New("the answer was lost, and the hold does not honor keys: the pull may not be counted")

// Pulls reports pulls to a hold.
type Pulls struct {
	hold     Hold
	public   func(repository string) bool
	Interval time.Duration
	now      func() time.Time
}

// NewPulls returns what reports the pulls of public repositories. An interval of 0 is
// DefaultInterval.
func NewPulls(hold Hold, public func(repository string) bool, interval time.Duration, now func() time.Time) *Pulls {
	if interval == 0 {
		interval = DefaultInterval
	}
	return &Pulls{hold, public, interval, now}
}

// Call returns the call of an event of the pull stream; false if it has none.
func (p *Pulls) Call(journal string, e event.Sequenced) (client.Call, bool) {
	if e.Operation != event.OpPull || e.Class != counts.Pull || !p.public(e.Name()) {
		return client.Call{}, false
	}
	in := e.NotifyManifestInput
	in.Visibility = ""
	return client.Call{Input: in, Key: fmt.Sprintf("pull %s %d", journal, e.Seq), Since: p.now()}, true
}

// Repeatable reports whether a call may be repeated. If that is not known, it asks the hold.
func (p *Pulls) Repeatable(ctx context.Context, c client.Call) (bool, error) {
	if p.hold.Status().Keys == client.KeysUnknown {
		if _, err := p.hold.Written(ctx, c); err != nil {
			return false, err
		}
	}
	return p.hold.Status().Keys == client.KeysHonored, nil
}

// Report makes a call. A *client.RefusedError and ErrUncounted are final; after any other
// error it may be called again.
func (p *Pulls) Report(ctx context.Context, c client.Call) error {
	_, err := p.hold.Notify(ctx, c)
	if client.Lost(err) && p.hold.Status().Keys != client.KeysHonored {
		return fmt.Errorf("%w: %w", ErrUncounted, err)
	}
	return err
}
