package repo

import (
	"context"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/repo/frame"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Notice is an event that changes nothing and repeats the current state.
type Notice string

const (
	Identity    Notice = frame.KindIdentity                 // resolve the identity again: handle, keys, host
	Account     Notice = frame.KindAccount                  // the account is active on this host
	Deactivated Notice = frame.KindAccount + " deactivated" // the account is not active on this host
	Sync        Notice = frame.KindSync                     // the head is this commit; replaces any earlier state
)

// Notify logs events in this order and returns once they are durable. The
// errors are those of Apply. Identity and Deactivated are allowed even while the
// account is deactivated.
func (r *Repo) Notify(ctx context.Context, notices ...Notice) error {
	if len(notices) == 0 {
		return nil
	}
	_, err := r.submit(request{ctx: ctx, notices: notices})
	return err
}

func (w *writer) addNotice(b store.Batch, n Notice) error {
	seq, _, err := tick(w.next, w.cfg.Now())
	if err != nil {
		return err
	}
	f, err := n.encode(w.next, w.cfg.Handle, seq)
	if err != nil {
		return err
	}
	w.next.Logged = layout.SetEvent(b, w.next.Logged, seq, f)
	w.next.Seq = seq
	return nil
}

// encode returns the frame of a notice about a state.
func (n Notice) encode(s layout.State, handle string, seq uint64) ([]byte, error) {
	event := frame.Event{DID: s.DID, Seq: seq}
	switch n {
	case Identity:
		return event.Identity(handle)
	case Account:
		return event.Account("")
	case Deactivated:
		return event.Account("deactivated")
	case Sync:
		return event.Sync(s.Commit, s.Rev, s.Block)
	}
	return nil, fmt.Errorf("unknown notice %q", n)
}
