package journal

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
)

// maxOpen bounds what open intents take in memory, in bytes of their records.
const maxOpen = 32 << 20

// An intentState is kept until what settled it is durable.
type intentState struct {
	id       uint64
	mark     uint64
	payload  []byte
	place    pos  // of its newest record, even if the disk lost that
	released bool // nobody will settle it but who learns of it from Unresolved
	settling bool // its completion or abandonment is on its way to disk
	dropped  bool // its abandonment could not be written, which is tried again
	settled  pos  // behind the record that settled it
	outcome  byte // that record's kind
}

func (in *intentState) size() int64 { return recordHead + int64(len(in.payload)) }

// Begin appends an intent to push or delete, whose payload may have MaxIntent
// bytes. It returns once the operating system has it: should the process die
// before the intent is completed or abandoned, the next one finds it with
// Unresolved. A mark that the event may use later is given here, so that LastOrder
// covers it.
func (j *Journal) Begin(ctx context.Context, mark uint64, payload []byte) (Intent, error) {
	s := j.streams[Pushes]
	late := s.late()
	in := Intent{j.intents.Add(1)}
	b, _, lead, err := s.queue(ctx, late, record{kind: kindIntent, intent: in.id, mark: mark, payload: payload})
	if err == nil {
		if lead {
			s.lead()
		}
		if err = await(ctx, late, b.done); err == nil {
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

// withdraw abandons an intent whose Begin did not wait for it.
func (j *Journal) withdraw(b *batch, in Intent) {
	<-b.done
	if b.err == nil {
		j.Abandon(in) // an error leaves it to the next append
	}
}

// Complete appends the event that in announced and returns its number once
// it is durable. After an error the event may still arrive: if it was written
// and not yet durable, in counts as settled unless the disk loses the event;
// if it was not written, in is open as before. Whoever does not try again
// calls LeaveOpen.
func (j *Journal) Complete(ctx context.Context, in Intent, mark uint64, payload []byte) (seq uint64, err error) {
	s := j.streams[Pushes]
	late := s.late()
	seq, end, err := s.append(ctx, late, record{kind: kindEvent, intent: in.id, mark: mark, payload: payload})
	if err == nil {
		err = s.syncTo(ctx, late, end)
	}
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	return seq, nil
}

// Abandon says that nothing came of in. It is not durable: after a power cut
// in may be open again. What could not be written is written with the next
// append that works. Abandoning a settled intent does nothing.
func (j *Journal) Abandon(in Intent) error {
	s := j.streams[Pushes]
	_, _, err := s.append(context.Background(), s.late(), record{kind: kindAbandon, intent: in.id})
	if err != nil && err != ErrNotOpen {
		return fmt.Errorf("abandon intent: %w", err)
	}
	return nil
}

// LeaveOpen says that whoever began in will not settle it, since Complete failed
// and the request is over. If in is open, or turns out to be because the disk
// loses its event, Unresolved returns it. Releasing a settled intent does nothing.
func (j *Journal) LeaveOpen(in Intent) {
	s := j.streams[Pushes]
	s.mu.Lock()
	defer s.mu.Unlock()
	if open := s.intents[in.id]; open != nil {
		open.released = true
	}
	for _, settled := range s.settled {
		if settled.id == in.id {
			settled.released = true
		}
	}
}

// Unresolved returns the open intents that an earlier process began or that
// were released, in the order in which they were begun. One whose event is on
// its way to disk is not among them.
func (j *Journal) Unresolved() []OpenIntent {
	s := j.streams[Pushes]
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []OpenIntent
	for _, id := range slices.Sorted(maps.Keys(s.intents)) {
		if in := s.intents[id]; in.released && !in.settling {
			open = append(open, OpenIntent{Intent{id}, in.payload, in.mark})
		}
	}
	return open
}

// claim makes r the one record that may settle its intent, and refuses a new
// intent beyond maxOpen. An open intent that is moved must not be settled by a
// record before its own. mu is held.
func (s *stream) claim(r record) error {
	in := s.intents[r.intent]
	switch {
	case r.intent == 0:
		return nil
	case r.kind == kindIntent && !r.again:
		if s.openBytes+recordHead+int64(len(r.payload)) > maxOpen {
			return ErrTooMany
		}
		return nil
	case in == nil || in.settling:
		return ErrNotOpen
	}
	in.settling = !r.again
	return nil
}

// unclaim undoes claim for the records of a batch that was not written.
func (s *stream) unclaim(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	walk(b.buf, func(_ []byte, r record) {
		in := s.intents[r.intent]
		switch {
		case in == nil || r.kind == kindIntent:
		case r.kind == kindAbandon:
			in.dropped = true
			s.dropped = append(s.dropped, in)
		default:
			in.settling = false
		}
	})
}

// dropAgain puts the abandonments that failed before into b. mu is held.
func (s *stream) dropAgain(b *batch) {
	for _, in := range s.dropped {
		in.dropped = false
		b.buf = record{kind: kindAbandon, intent: in.id}.encode(b.buf)
	}
	s.dropped = nil
}

// noteIntent takes in what a record on disk does to the intents. mu is held.
func (s *stream) noteIntent(r record, payload []byte, place pos) {
	in := s.intents[r.intent]
	switch {
	case r.intent == 0:
	case r.kind == kindIntent && in != nil:
		in.place = place
	case r.kind == kindIntent:
		in = &intentState{id: r.intent, mark: r.mark, payload: bytes.Clone(payload), place: place}
		s.intents[in.id] = in
		s.openBytes += in.size()
	case in != nil:
		delete(s.intents, in.id)
		s.openBytes -= in.size()
		in.settled, in.outcome = place+pos(recordHead+len(payload)), r.kind
		s.settled = append(s.settled, in)
	}
}

// forgetSettled forgets the intents that were settled durably. mu is held.
func (s *stream) forgetSettled() {
	n := 0
	for n < len(s.settled) && s.settled[n].settled <= s.durable {
		n++
	}
	s.settled = slices.Delete(s.settled, 0, n)
}

// restoreIntents is called when what was not durable has moved to another
// segment: moved says where the intents went. Those whose end the disk has
// lost are open again. mu is held.
func (s *stream) restoreIntents(moved map[uint64]pos) {
	for _, in := range s.settled {
		if !s.lost(in.settled) {
			continue
		}
		s.intents[in.id] = in
		s.openBytes += in.size()
		in.settling = in.outcome == kindAbandon
		if in.settling {
			in.dropped = true
			s.dropped = append(s.dropped, in)
		}
	}
	s.settled = nil
	for id, place := range moved {
		if in := s.intents[id]; in != nil {
			in.place = place
		}
	}
}

// move appends the intents that lie in g, or that the disk lost, once more, so
// that g may be deleted.
func (s *stream) move(g *segment) error {
	var open []record
	s.mu.Lock()
	for id, in := range s.intents {
		if in.place.segment() <= g.number && !in.settling {
			open = append(open, record{kind: kindIntent, again: true, intent: id, mark: in.mark, payload: in.payload})
		}
	}
	s.mu.Unlock()
	for _, r := range open {
		if _, _, err := s.append(context.Background(), s.late(), r); err != nil && err != ErrNotOpen {
			return fmt.Errorf("move an open intent: %w", err)
		}
	}
	return nil
}

// holds reports whether something that is not yet durable elsewhere needs g.
// An abandonment that could not be written is none: without its intent it is
// not needed. mu is held.
func (s *stream) holds(g *segment) bool {
	needs := func(in *intentState) bool { return in.place.segment() <= g.number && !in.dropped }
	for _, in := range s.intents {
		if needs(in) {
			return true
		}
	}
	return slices.ContainsFunc(s.settled, needs)
}

// dropWith forgets the intents in g whose abandonment could not be written.
// mu is held.
func (s *stream) dropWith(g *segment) {
	s.dropped = slices.DeleteFunc(s.dropped, func(in *intentState) bool {
		if in.place.segment() > g.number {
			return false
		}
		delete(s.intents, in.id)
		s.openBytes -= in.size()
		return true
	})
}
