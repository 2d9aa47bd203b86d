package backfill

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// append appends the event of a manifest when it may.
func (r *run) append(ctx context.Context, owner owners.Owner, m *missing) error {
	if err := r.wait(ctx, m); err != nil {
		return err
	}
	seq, err := r.Append(ctx, event.Event{
		MediaType: m.mediaType,
		NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository: m.repository, UserDID: owner.DID, ManifestDigest: m.digest, Operation: event.OpPush,
		},
	}, m.payload, m.records)
	if err != nil {
		return err
	}
	r.pending = append(r.pending, pendingEvent{seq, m.records, len(m.payload)})
	r.records, r.bytes = r.records+m.records, r.bytes+len(m.payload)
	var b state.Batch
	r.update(&b, func(j *Job) {
		j.Recorded++
		j.Records += int64(m.records)
		j.Last, j.Journal, j.Waiting = seq, r.Journal.ID(), ""
		r.speed.note(r.Now(), j.Recorded)
	})
	if r.unsaved++; r.unsaved < saveEvery {
		return ctx.Err()
	}
	r.unsaved = 0
	return r.save(&b, state.NoSync)
}

// wait returns when the event of a manifest may be appended.
func (r *run) wait(ctx context.Context, m *missing) error {
	if err := r.waitForRate(ctx); err != nil {
		return err
	}
	for {
		if err := r.ready(ctx); err != nil {
			return err
		}
		if err := r.waitUntil(ctx, "other sinks are behind, and the journal is half full", func() bool { return !r.Journal.HalfFull(journal.Pushes) }); err != nil {
			return err
		}
		if err := r.waitUntil(ctx, "", func() bool { return r.fits(m) }); err != nil {
			return err
		}
		if r.Spare == nil {
			return nil
		}
		ok, at := r.Spare(r.records, m.records)
		if ok {
			return nil
		}
		if r.records > 0 { // they count twice while they are being written
			sink.Pause(ctx, pollEvery)
			continue
		}
		r.waits("the account has no points to spare until " + at.UTC().Format(time.RFC3339))
		sink.Pause(ctx, min(max(at.Sub(r.Now()), pollEvery), time.Minute))
	}
}

// waitForRate waits as the rate of the request says.
func (r *run) waitForRate(ctx context.Context) error {
	if r.job.Rate == 0 {
		return ctx.Err()
	}
	now := r.Now()
	if wait := r.next.Sub(now); wait > 0 {
		sink.Pause(ctx, wait)
	} else {
		r.next = now
	}
	r.next = r.next.Add(time.Duration(float64(time.Second) / r.job.Rate))
	return ctx.Err()
}

// fits reports whether the pending events leave room for another manifest.
func (r *run) fits(m *missing) bool {
	done := r.Journal.Cursor(journal.Pushes, records.Name)
	n := 0
	for n < len(r.pending) && r.pending[n].seq <= done {
		r.records, r.bytes = r.records-r.pending[n].records, r.bytes-r.pending[n].bytes
		n++
	}
	r.pending = r.pending[n:]
	return len(r.pending) == 0 || r.records+m.records <= r.Window && r.bytes+len(m.payload) <= maxBytes
}

// ready waits until something may be written.
func (r *run) ready(ctx context.Context) error {
	for {
		err := r.Ready()
		if err == nil {
			return ctx.Err()
		}
		r.waits(err.Error())
		if sink.Pause(ctx, time.Second); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// waitUntil waits until done returns true. The reason is shown meanwhile, unless it is "".
func (r *run) waitUntil(ctx context.Context, reason string, done func() bool) error {
	for !done() {
		if reason != "" {
			r.waits(reason)
		}
		if sink.Pause(ctx, pollEvery); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// waits shows why nothing is recorded.
func (r *run) waits(reason string) { r.update(nil, func(j *Job) { j.Waiting = reason }) }
