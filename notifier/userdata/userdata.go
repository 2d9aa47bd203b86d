// Package userdata knows which accounts have data here, and records their requests to have
// it deleted. The sinks delete it: see packages records, announce and statsrecords of
// notifier.
package userdata

import (
	"context"
	"log/slog"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// Data is the data of accounts. It is safe for concurrent use.
type Data struct {
	State    state.Store
	Usage    *usage.Table
	Journal  *journal.Journal
	Calls    *inbound.Log // so that a token deletes once, also across a crash
	Clock    *event.Clock
	Recorded func(seq uint64, e *event.Event) // called with the event of each deletion
	Metrics  *sink.Metrics                    // nil: none
	Log      *slog.Logger
}

// HasData reports whether an account has records of images.
func (d *Data) HasData(did string) (bool, error) {
	page, err := d.Usage.Manifests(did, "", 1)
	return len(page) > 0, err
}

// Delete has all records about an account deleted, the issuer of the request. When it returns
// without an error, that is durable, and includes the records of pushes that are pending.
// The output counts the records that exist now.
//
// inbound.ErrTokenUsed and inbound.ErrBusy refuse the request. After any other error it is
// not known whether it is recorded.
func (d *Data) Delete(ctx context.Context, request inbound.Notification) (out lexicon.DeletedUserData, err error) {
	if request.Unlisted && d.Journal.HalfFull(journal.Pushes) {
		return out, inbound.ErrBusy // at the limit pushes would be dropped
	}
	id, err := inbound.NewID(&request)
	if err != nil {
		return out, err
	}
	owner := request.Issuer
	if out.LayersDeleted, err = d.Usage.Listed(ctx, owner); err != nil {
		return out, err
	}
	if out.StatsDeleted, err = statsrecords.Owned(d.State, owner); err != nil {
		return out, err
	}
	if _, err := d.Calls.Begin(ctx, id); err != nil {
		return out, err
	}
	seq, err := d.record(ctx, owner, id)
	d.Calls.End(id, seq)
	if err != nil {
		d.Metrics.Event(event.OpForgetOwner, "refused")
		return out, err
	}
	d.Metrics.Event(event.OpForgetOwner, "recorded")
	d.Log.Info("an owner has its data deleted", "owner", owner, "event", seq, "layers", out.LayersDeleted, "stats", out.StatsDeleted)
	out.Success = true
	return out, nil
}

// record appends the event, also if ctx ends.
func (d *Data) record(ctx context.Context, owner string, id *inbound.ID) (uint64, error) {
	e := event.Event{Version: event.RemovalVersion, Actor: owner, Inbound: id}
	e.UserDID, e.Operation = owner, event.OpForgetOwner
	e.Time, e.TID, e.ClockID = d.Clock.Reserve(1)
	e.Time = e.Time.UTC()
	payload, err := e.Encode()
	if err != nil {
		return 0, err
	}
	seq, err := d.Journal.Append(context.WithoutCancel(ctx), journal.Pushes, uint64(e.TID), payload)
	if err == nil {
		d.Recorded(seq, &e)
	}
	return seq, err
}
