package journal

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
)

// The protocol of intents. A push or a delete is recorded in two steps:
//
//	Begin     appends an intent record, before storage is changed
//	Complete  appends the event, whose record also carries the intent's id; or
//	Abandon   appends a record that cancels the intent: there was no effect
//
// One record thus completes the intent and adds the event, so a crash never
// leaves one without the other. s.intents holds the open intents; s.ended those
// whose completing or abandoning record is written, but not yet durable.
//
//   - Crash after Begin: load finds the intent open, and Unresolved returns it.
//     The caller asks storage whether the push or delete took effect.
//   - Power cut after Begin: the intent may be lost, since it is not fsynced. The
//     client's request was not acknowledged, and reconciliation finds its effect.
//   - Complete fails before the write: the intent is open as before. After the
//     write: it stays ended, unless the disk loses the event; then
//     restoreIntents opens it again.
//   - Abandon fails: the intent keeps abandonFailed, and the next append writes
//     the record. A crash before that leaves an open intent, which is resolved.
//   - The segment of an open intent is deleted: moveIntents appends the intent
//     again and syncs it first. Replaying an intent twice has no effect.

// maxOpen limits the total size of the records of open intents, in bytes.
const maxOpen = 32 << 20

// An intentState is kept until the record that ends the intent is durable.
type intentState struct {
	id            uint64
	order         uint64
	payload       []byte
	pos           position // of its newest record, even if the disk lost that
	released      bool     // LeaveOpen was called, or its process has ended: Unresolved returns it
	ending        bool     // the record that completes or abandons it is being written
	abandonFailed bool     // its abandonment could not be written and will be retried
	ended         position // end of the record that completed or abandoned it
	outcome       byte     // that record's kind
}

func (in *intentState) size() int64 { return recordHead + int64(len(in.payload)) }

// Begin appends an intent to push or delete, with a payload of at most MaxIntent
// bytes. It returns once the operating system has the record: if the process
// dies before the intent is completed or abandoned, Unresolved returns it to the
// next process. order is the highest order number that the event may use, so
// that LastOrder includes it.
func (j *Journal) Begin(ctx context.Context, order uint64, payload []byte) (Intent, error) {
	s := j.streams[Pushes]
	deadline := s.deadline()
	in := Intent{j.intents.Add(1)}
	b, _, lead, err := s.queue(ctx, deadline, record{kind: kindIntent, intent: in.id, order: order, payload: payload})
	if err == nil {
		if lead {
			s.lead()
		}
		if err = await(ctx, deadline, b.done); err == nil {
			err = b.err
		} else {
			go j.withdraw(b, in)
		}
	}
	if err != nil {
		return Intent{}, fmt.Errorf("append intent: %w", err)
	}
	return in, nil
}

// withdraw abandons an intent whose Begin returned before it was written.
func (j *Journal) withdraw(b *batch, in Intent) {
	<-b.done
	if b.err == nil {
		j.Abandon(in) // after an error the next append retries
	}
}

// Complete appends the event of in and returns its sequence number once it is
// durable. After an error the event may still become durable: if it was written,
// in is completed unless the disk loses the event; otherwise in is still open.
// A caller that does not retry must call LeaveOpen.
func (j *Journal) Complete(ctx context.Context, in Intent, order uint64, payload []byte) (seq uint64, err error) {
	s := j.streams[Pushes]
	deadline := s.deadline()
	seq, end, err := s.append(ctx, deadline, record{kind: kindEvent, intent: in.id, order: order, payload: payload})
	if err == nil {
		err = s.syncTo(ctx, deadline, end)
	}
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	return seq, nil
}

// Abandon ends in without an event, since the request had no effect. It is not
// durable: after a power cut in may be open again. If the record cannot be
// written, the next successful append writes it. Abandon has no effect on an
// intent that is not open.
func (j *Journal) Abandon(in Intent) error {
	s := j.streams[Pushes]
	_, _, err := s.append(context.Background(), s.deadline(), record{kind: kindAbandon, intent: in.id})
	if err != nil && err != ErrNotOpen {
		return fmt.Errorf("abandon intent: %w", err)
	}
	return nil
}

// LeaveOpen reports that the caller of Begin will neither complete nor abandon
// in. If in is open, or is opened again because the disk loses its event,
// Unresolved returns it. LeaveOpen has no effect on an intent that is not open.
func (j *Journal) LeaveOpen(in Intent) {
	s := j.streams[Pushes]
	s.mu.Lock()
	defer s.mu.Unlock()
	if open := s.intents[in.id]; open != nil {
		open.released = true
	}
	for _, ended := range s.ended {
		if ended.id == in.id {
			ended.released = true
		}
	}
}

// Unresolved returns the open intents of earlier processes and those passed to
// LeaveOpen, in the order of their Begin, except intents that are being completed
// or abandoned.
func (j *Journal) Unresolved() []OpenIntent {
	s := j.streams[Pushes]
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []OpenIntent
	for _, id := range slices.Sorted(maps.Keys(s.intents)) {
		if in := s.intents[id]; in.released && !in.ending {
			open = append(open, OpenIntent{Intent{id}, in.payload, in.order})
		}
	}
	return open
}

// InProgress is the number of open intents that are neither completed nor abandoned nor left
// open yet.
func (j *Journal) InProgress() (n int) {
	s := j.streams[Pushes]
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.intents {
		if !in.released {
			n++
		}
	}
	return n
}

// admit ensures that only one record ends an intent, and refuses a new intent
// above maxOpen. A record that moves an open intent must not follow the record
// that ends it. mu is held.
func (s *stream) admit(r record) error {
	in := s.intents[r.intent]
	switch {
	case r.intent == 0:
		return nil
	case r.kind == kindIntent && !r.again:
		if s.openBytes+recordHead+int64(len(r.payload)) > maxOpen {
			return ErrTooMany
		}
		return nil
	case in == nil || in.ending:
		return ErrNotOpen
	}
	in.ending = !r.again
	return nil
}

// undoAdmit undoes admit for the records of a batch that was not written.
func (s *stream) undoAdmit(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	walk(b.buf, func(_ []byte, r record) {
		in := s.intents[r.intent]
		switch {
		case in == nil || r.kind == kindIntent:
		case r.kind == kindAbandon:
			in.abandonFailed = true
			s.failedAbandons = append(s.failedAbandons, in)
		default:
			in.ending = false
		}
	})
}

// retryAbandons adds the abandonments that could not be written to b. mu is held.
func (s *stream) retryAbandons(b *batch) {
	for _, in := range s.failedAbandons {
		in.abandonFailed = false
		b.buf = record{kind: kindAbandon, intent: in.id}.encode(b.buf)
	}
	s.failedAbandons = nil
}

// applyIntent updates the intents for a record that was written. mu is held.
func (s *stream) applyIntent(r record, payload []byte, pos position) {
	in := s.intents[r.intent]
	switch {
	case r.intent == 0:
	case r.kind == kindIntent && in != nil:
		in.pos = pos
	case r.kind == kindIntent:
		in = &intentState{id: r.intent, order: r.order, payload: bytes.Clone(payload), pos: pos}
		s.intents[in.id] = in
		s.openBytes += in.size()
	case in != nil:
		delete(s.intents, in.id)
		s.openBytes -= in.size()
		in.ended, in.outcome = pos+position(recordHead+len(payload)), r.kind
		s.ended = append(s.ended, in)
	}
}

// forgetEnded drops the intents whose last record is durable. mu is held.
func (s *stream) forgetEnded() {
	n := 0
	for n < len(s.ended) && s.ended[n].ended <= s.durable {
		n++
	}
	s.ended = slices.Delete(s.ended, 0, n)
}

// restoreIntents is called after the records that were not durable have moved to
// another segment; moved has the new positions of intents. Intents whose last
// record was lost are open again. mu is held.
func (s *stream) restoreIntents(moved map[uint64]position) {
	for _, in := range s.ended {
		if !s.lost(in.ended) {
			continue
		}
		s.intents[in.id] = in
		s.openBytes += in.size()
		in.ending = in.outcome == kindAbandon
		if in.ending {
			in.abandonFailed = true
			s.failedAbandons = append(s.failedAbandons, in)
		}
	}
	s.ended = nil
	for id, pos := range moved {
		if in := s.intents[id]; in != nil {
			in.pos = pos
		}
	}
}

// moveIntents appends the open intents of g, and those that the disk lost, again,
// so that g can be deleted.
func (s *stream) moveIntents(g *segment) error {
	var open []record
	s.mu.Lock()
	for id, in := range s.intents {
		if in.pos.segment() <= g.number && !in.ending {
			open = append(open, record{kind: kindIntent, again: true, intent: id, order: in.order, payload: in.payload})
		}
	}
	s.mu.Unlock()
	for _, r := range open {
		if _, _, err := s.append(context.Background(), s.deadline(), r); err != nil && err != ErrNotOpen {
			return fmt.Errorf("move an open intent: %w", err)
		}
	}
	return nil
}

// needed reports whether g has an intent that is not yet durable elsewhere. An
// intent whose abandonment could not be written does not count: both are deleted with g.
// mu is held.
func (s *stream) needed(g *segment) bool {
	needed := func(in *intentState) bool { return in.pos.segment() <= g.number && !in.abandonFailed }
	for _, in := range s.intents {
		if needed(in) {
			return true
		}
	}
	return slices.ContainsFunc(s.ended, needed)
}

// forgetAbandoned forgets the intents in g whose abandonment could not be
// written. mu is held.
func (s *stream) forgetAbandoned(g *segment) {
	s.failedAbandons = slices.DeleteFunc(s.failedAbandons, func(in *intentState) bool {
		if in.pos.segment() > g.number {
			return false
		}
		delete(s.intents, in.id)
		s.openBytes -= in.size()
		return true
	})
}
