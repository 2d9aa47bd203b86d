package notifier

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/announce"
)

// ErrNotReady is returned while nothing may be written to the account.
var ErrNotReady = errors.New("nothing can be written to the account at the moment")

// Announcements are the posts of the announce sink.
type Announcements struct {
	*announce.Sink
	ready func() error
}

// Announcements returns the posts; nil if nothing is announced.
func (n *Notifier) Announcements() *Announcements {
	if n.announce == nil {
		return nil
	}
	return &Announcements{n.announce, n.stores.Ready}
}

// Withdraw is announce.Sink.Withdraw. While the stores are compared, which reads and writes
// the post history, it returns ErrNotReady.
func (a *Announcements) Withdraw(ctx context.Context, uri string) (announce.Withdrawal, error) {
	if err := a.ready(); err != nil {
		return announce.Withdrawal{}, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return a.Sink.Withdraw(ctx, uri)
}
