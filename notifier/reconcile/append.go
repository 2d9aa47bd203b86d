package reconcile

import (
	"cmp"
	"context"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// reconcileAhead is how many events may be pending at the records sink before the
// reconciliation waits for it.
const reconcileAhead = 1000

// appendPaced appends an event when not too many are pending.
func (r *Reconciler) appendPaced(ctx context.Context, e event.Event, manifest []byte, layers int) error {
	if last := r.Journal.Status(journal.Pushes).Last; last > reconcileAhead {
		if err := r.waitForRecords(ctx, last-reconcileAhead); err != nil {
			return err
		}
	}
	_, err := r.Append(ctx, e, manifest, layers)
	return err
}

// Append records an event that has no request, with the bytes of its manifest, if it has
// one, and keys for the records of its layers. If its version is 0 it is event.Version.
func (r *Reconciler) Append(ctx context.Context, e event.Event, manifest []byte, layers int) (seq uint64, err error) {
	e.Version, e.TIDs = cmp.Or(e.Version, event.Version), layers
	e.Time, e.TID, e.ClockID = r.Clock.Reserve(1 + layers)
	e.Time = e.Time.UTC()
	var payload []byte
	if manifest != nil {
		payload = e.EncodePushed(manifest)
	} else {
		if payload, err = e.Encode(); err != nil {
			return 0, err
		}
	}
	seq, err = r.Journal.Append(ctx, journal.Pushes, uint64(e.TID)+uint64(e.TIDs), payload)
	if err == nil {
		r.Appended(seq, &e, manifest)
	}
	return seq, err
}

// waitForRecords waits until the records sink has processed an event.
func (r *Reconciler) waitForRecords(ctx context.Context, seq uint64) error {
	for r.Journal.Cursor(journal.Pushes, records.Name) < seq {
		if sink.Pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
